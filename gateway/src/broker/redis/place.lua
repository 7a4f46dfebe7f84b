-- Finds the position before the first entry that a `since=` means.
-- KEYS: log. ARGV: 'time' and µs, 'ago' and µs, 'last' and a count, or 'earliest' and anything.
-- Answers {position of the first such entry, its `prev`}, {last position} if there is none, or {} without a log.

local log, kind = KEYS[1], ARGV[1]
local info = redis.pcall('XINFO', 'STREAM', log)
if info.err then
  if not string.find(info.err, 'no such key', 1, true) then return info end
  return {}
end
local last = ''
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end

local entry
if kind == 'last' then
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', ARGV[2])
  entry = newest and newest[#newest]
else
  local from = kind == 'time' and ARGV[2] or '-'
  if kind == 'ago' then
    -- By the clock that the positions are from: the replicas' may be another.
    local time = redis.call('TIME')
    from = string.format('%.0f', math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]) - tonumber(ARGV[2]), 0))
  end
  entry = redis.call('XRANGE', log, from, '+', 'COUNT', 1)[1]
end
if not entry then return {last} end
local fields = entry[2]
for i = 1, #fields, 2 do
  if fields[i] == 'prev' then return {entry[1], fields[i + 1]} end
end
return {entry[1], '0'}
