-- The same as the function, after core.lua and direct.lua, for servers that have no functions.
-- KEYS: log, idempotency, limits, which are also derived from the rest.
-- ARGV: <prefix><channel>, prefix, PUBLISH or SPUBLISH, type, data, idempotency key or '', the most bytes of data.

local key = ARGV[6] ~= '' and ARGV[6] or nil
return publish_directly(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], key, tonumber(ARGV[7]))
