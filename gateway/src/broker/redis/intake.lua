-- Publishes entries of an intake stream to one channel, each once, after core.lua.
-- KEYS: log, and the hash that has, by stream, the id of the last entry that was published here (in the channel's slot).
-- ARGV: PUBLISH or SPUBLISH (and ` later`: the caller announces), the pub/sub channel, size, age in µs, memory in s, the
--       stream, the id of the entry that has to be here already or ''; then id, type and data of each entry.
-- Answers what became of each: its position or '' without history, '=' if it had been published before, or an error; what
-- comes after an error was not published.

local taken, stream, before = KEYS[2], ARGV[6], ARGV[7]

-- Whether an id is less than another: numbers of up to 20 digits, which Lua's own cannot hold.
local function less(one, other)
  local a, b = {string.match(one, '^(%d+)-(%d+)$')}, {string.match(other, '^(%d+)-(%d+)$')}
  for i = 1, 2 do
    if #a[i] ~= #b[i] then return #a[i] < #b[i] end
    if a[i] ~= b[i] then return a[i] < b[i] end
  end
  return false
end

local last = redis.pcall('HGET', taken, stream)
if failed(last) then return last end
if before ~= '' and (not last or less(last, before)) then
  return redis.error_reply('ERR the entry before it was not published: ' .. before)
end

local answers, events, ids = {}, {}, {}
for i = 8, #ARGV, 3 do
  if last and not less(last, ARGV[i]) then
    answers[#answers + 1] = '='
  else
    ids[#ids + 1] = ARGV[i]
    events[#events + 1] = ARGV[i + 1]
    events[#events + 1] = ARGV[i + 2]
    events[#events + 1] = ''
  end
end

if #ids > 0 then
  -- Before the entries: were it refused after them, they would be published again.
  local noted = redis.pcall('HSET', taken, stream, ids[#ids])
  if failed(noted) then return noted end
  local published = publish({
    log = KEYS[1], announce = string.match(ARGV[1], '^%u+'), later = string.find(ARGV[1], ' later') ~= nil,
    name = ARGV[2], lifetime = 0, size = ARGV[3], age = tonumber(ARGV[4]), memory = ARGV[5],
  }, events, 1)
  local reached = 0
  for i = 1, #ids do
    local answer = published.err and published or published[i]
    answers[#answers + 1] = answer
    if failed(answer) then break end
    reached = i
  end
  if reached < #ids then
    local is = ids[reached] or last
    if is then redis.pcall('HSET', taken, stream, is) else redis.pcall('HDEL', taken, stream) end
  end
end
-- A write, so that a WAIT after a repeat waits for something. Longer than any process is frozen and goes on.
redis.pcall('EXPIRE', taken, number(math.max(tonumber(ARGV[5]), 604800)))
return answers
