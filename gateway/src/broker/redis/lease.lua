-- Takes or keeps the lease of an intake stream, lets go of what was settled, and reads what comes next, in one step.
-- KEYS: the stream, its lease. ARGV: who, for how long in ms, the id up to which everything is settled or '', how many
-- entries to read.
-- Answers the next entries, or nothing if another has the lease.

local stream, lease, who = KEYS[1], KEYS[2], ARGV[1]
local holder = redis.call('GET', lease)
if holder and holder ~= who then return false end
redis.call('SET', lease, who, 'PX', ARGV[2])
if ARGV[3] ~= '' then
  -- What is settled, and nothing else.
  redis.call('XTRIM', stream, 'MINID', '=', ARGV[3])
  redis.call('XDEL', stream, ARGV[3])
end
return redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[4])
