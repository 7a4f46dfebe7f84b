-- Writes down, once, that the history after a position is another one than some have seen. Comes after core.lua.
-- KEYS: log. ARGV: PUBLISH or SPUBLISH, the pub/sub channel, the last position that both lines have, size, age in µs,
-- memory in s, how many of the newest entries to look for the same mark in.
-- Answers {position of the mark or of the one that was there, 1 if it was there else 0}.

local log, common = KEYS[1], ARGV[3]
for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', ARGV[7])) do
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'fork' and entry[2][i + 1] == common then return {entry[1], 1} end
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local line, refusal = line_of(log, now)
if not line then return refusal end
local micros = now
if micros <= line.micros then micros = line.micros + line.step end
local position = number(micros) .. '-' .. number(line.seq + 1)
local written = redis.pcall('XADD', log, 'MAXLEN', '=', ARGV[4], position,
  'event', '', 'data', '', 'prev', line.text, 'fork', common)
if failed(written) then return written end
redis.pcall('XTRIM', log, 'MINID', '=', number(math.max(now - tonumber(ARGV[5]), 0)))
redis.pcall('EXPIRE', log, ARGV[6])
-- A version that nobody reads: whoever hears of it reads the log, and finds the mark.
redis.pcall(ARGV[1], ARGV[2], '\255\0')
return {position, 0}
