-- A gateway's publish, after core.lua: it knows the rules, and leaves them for publishers that do not.
-- KEYS: log, idempotency, limits (all in the channel's slot).
-- ARGV: PUBLISH or SPUBLISH, the pub/sub channel, type, data, idempotency key, its lifetime in s,
--       size, age in µs, memory in s, the limits that need no key. Size 0: no history.
-- Answers {position or '', 1 if the key was known else 0, the limits that stood there if they were neither ours nor the
-- default else ''}.

local answer = publish({
  log = KEYS[1], idempotency = KEYS[2],
  announce = ARGV[1], name = ARGV[2], event = ARGV[3], data = ARGV[4], key = ARGV[5],
  lifetime = tonumber(ARGV[6]), size = tonumber(ARGV[7]), age = tonumber(ARGV[8]), memory = tonumber(ARGV[9]),
})
-- As when a replica joins: else a channel that nobody has subscribed to yet would be trimmed by the defaults as soon as
-- somebody publishes who does not know the rules. Nothing here may fail: the entry is written.
if answer.err == nil and ARGV[7] ~= '0' then
  local limits, wanted = KEYS[3], table.concat({ARGV[7], ARGV[8], ARGV[9], ARGV[6]}, ' ')
  local found = redis.pcall('GET', limits)
  if type(found) == 'string' and found ~= wanted then answer[3] = found end
  if wanted == ARGV[10] then
    if type(found) == 'string' then redis.pcall('DEL', limits) end
  elseif found ~= wanted then
    redis.pcall('SET', limits, wanted, 'EX', ARGV[9])
  else
    redis.pcall('EXPIRE', limits, ARGV[9])
  end
end
if answer.err == nil and not answer[3] then answer[3] = '' end
return answer
