-- Prepares a channel that a replica has subscribed to. Answers {its last position ('' without history), the limits that
-- stood there if they were neither ours nor the default}.
-- KEYS: log, and limits or nothing, while these cannot be looked at. ARGV: size, age in µs, memory in s, lifetime of idempotency keys in s; the default limits as one
-- string. Size 0: no history.

local log, limits = KEYS[1], KEYS[2]
local size, memory = tonumber(ARGV[1]), ARGV[3]
local wanted = table.concat({ARGV[1], ARGV[2], ARGV[3], ARGV[4]}, ' ')

-- The channel's limits stand beside its log, for publishers that do not know the rules; the default needs no key.
local others = ''
if limits then
  local found = redis.call('GET', limits)
  others = found and found ~= wanted and found or ''
  if wanted == ARGV[5] then
    if found then redis.call('DEL', limits) end
  elseif found ~= wanted then
    redis.call('SET', limits, wanted, 'EX', memory)
  else
    redis.call('EXPIRE', limits, memory)
  end
end

if size == 0 then
  -- Else history switched off and on again would make a hole that looks continuous.
  redis.call('UNLINK', log)
  return {'', others}
end

local info = redis.pcall('XINFO', 'STREAM', log)
if info.err then
  if not string.find(info.err, 'no such key', 1, true) then return info end
  -- An empty channel needs an identity: else, after a wipe, new events would pass for all there ever were.
  local time = redis.call('TIME')
  local id = string.format('%.0f-0', tonumber(time[1]) * 1000000 + tonumber(time[2]))
  redis.call('XADD', log, 'MAXLEN', '=', '0', id, 'joined', '1')
  redis.call('EXPIRE', log, memory)
  return {id, others}
end
redis.call('EXPIRE', log, memory)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return {info[i + 1], others} end
end
return redis.error_reply('XINFO STREAM names no last-generated-id')
