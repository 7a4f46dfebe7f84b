-- A gateway's publish, after core.lua: it knows the rules, and leaves them for publishers that do not.
-- KEYS: log, idempotency, and limits or nothing, while these cannot be looked at (all in the channel's slot).
-- ARGV: PUBLISH or SPUBLISH (and ` later`: the caller announces), the pub/sub channel, lifetime of idempotency keys in s, size, age in µs, memory in s, these
--       as they stand in a limits key, the limits that need none; then type, data and idempotency key of each event.
--       Size 0: no history.
-- Answers what became of each event, its position or '', after a `=` if its key was known, or an error; and last the
-- limits that stood there if they were neither ours nor the default, else ''.

local answers, repeated, accepted = publish({
  log = KEYS[1], idempotency = KEYS[2], announce = string.match(ARGV[1], '^%u+'), later = string.find(ARGV[1], ' later') ~= nil, name = ARGV[2],
  lifetime = tonumber(ARGV[3]), size = ARGV[4], age = tonumber(ARGV[5]), memory = ARGV[6],
}, ARGV, 9)
if answers.err then return answers end

for nth in pairs(repeated or {}) do answers[nth] = '=' .. answers[nth] end
-- As when a replica joins: else a channel that nobody has subscribed to yet would be trimmed by the defaults as soon as
-- somebody publishes who does not know the rules. Nothing here may fail: entries are written.
local others = ''
if accepted and KEYS[3] and ARGV[4] ~= '0' then
  local limits, wanted, memory = KEYS[3], ARGV[7], ARGV[6]
  local found = redis.pcall('GET', limits)
  if type(found) == 'string' and found ~= wanted then others = found end
  if wanted == ARGV[8] then
    if type(found) == 'string' then redis.pcall('DEL', limits) end
  elseif found ~= wanted then
    redis.pcall('SET', limits, wanted, 'EX', memory)
  else
    redis.pcall('EXPIRE', limits, memory)
  end
end
answers[#answers + 1] = others
return answers
