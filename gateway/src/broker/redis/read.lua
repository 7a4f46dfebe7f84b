-- Reads a page of a channel's log in one step with its top.
-- KEYS: log. ARGV: an id, how many entries to read up to and with it, how many after it.
-- Answers {last position or '', entries in order, 1 if nothing follows them else 0}.

local log = KEYS[1]
local info = redis.pcall('XINFO', 'STREAM', log)
if info.err then
  if not string.find(info.err, 'no such key', 1, true) then return info end
  return {'', {}, 1}
end
local last = ''
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end

local entries = {}
local before = tonumber(ARGV[2])
if before > 0 then
  local reversed = redis.call('XREVRANGE', log, ARGV[1], '-', 'COUNT', before)
  for i = #reversed, 1, -1 do entries[#entries + 1] = reversed[i] end
end
local count = tonumber(ARGV[3])
local after = redis.call('XRANGE', log, '(' .. ARGV[1], '+', 'COUNT', count + 1)
for i = 1, math.min(#after, count) do entries[#entries + 1] = after[i] end
return {last, entries, #after > count and 0 or 1}
