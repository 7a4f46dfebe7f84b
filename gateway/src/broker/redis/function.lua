-- The functions, after core.lua and direct.lua.

local USAGE = 'ERR use FCALL sluice_publish 1 <prefix><channel> <type or ""> <data> [<idempotency key> [<prefix>]]'

-- The longest of the known prefixes that a name begins with.
local function prefix_of(name)
  local longest
  for prefix in pairs(PREFIXES) do
    if string.sub(name, 1, #prefix) == prefix and (not longest or #prefix > #longest) then longest = prefix end
  end
  return longest
end

-- A caller that knows its prefix may name it: where one prefix begins with another, the name alone could be either's.
redis.register_function('sluice_publish', function(keys, args)
  if #keys ~= 1 or #args < 2 or #args > 4 then return redis.error_reply(USAGE) end
  local name, prefix = keys[1], args[4]
  if not prefix then
    prefix = prefix_of(name)
  elseif string.sub(name, 1, #prefix) ~= prefix then
    prefix = nil
  end
  if not prefix then
    return redis.error_reply('ERR the name does not begin with a known prefix (sluice redis install --prefix adds one)'
      .. ': nothing was published')
  end
  local max_bytes = PREFIXES[prefix] or DEFAULT_MAX_BYTES
  return publish_directly(name, prefix, ANNOUNCE, args[1], args[2], args[3], max_bytes)
end)

redis.register_function({
  function_name = 'sluice_version',
  callback = function() return VERSION end,
  flags = {'no-writes'},
})
