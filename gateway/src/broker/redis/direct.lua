-- Publishing by those who do not know the gateways' rules, after core.lua: what they send is checked as a gateway checks
-- it, and the channel's limits are those that the gateways left.

-- Well formed as RFC 3629 says: no overlong form, no surrogate, nothing above U+10FFFF. A character's first byte never
-- stands inside another one, so they can be taken out kind by kind; a space in their place joins nothing.
local function is_utf8(text)
  if not string.find(text, '[\128-\255]') then return true end
  for _, character in ipairs({
    '[\194-\223][\128-\191]',
    '\224[\160-\191][\128-\191]',
    '[\225-\236\238\239][\128-\191][\128-\191]',
    '\237[\128-\159][\128-\191]',
    '\240[\144-\191][\128-\191][\128-\191]',
    '[\241-\243][\128-\191][\128-\191][\128-\191]',
    '\244[\128-\143][\128-\191][\128-\191]',
  }) do
    text = string.gsub(text, character, ' ')
  end
  return not string.find(text, '[\128-\255]')
end

-- What is wrong with an event, or nothing.
local function complaint(channel, event, data, key, max_bytes)
  if #channel < 1 or #channel > 200 then
    return 'a channel name is 1 to 200 bytes, this one has ' .. #channel
  end
  if string.find(channel, '[^\33-\126]') or string.find(channel, '["*,<>\\^{|}`]') then
    return 'a channel name is visible ASCII without "*,<>\\^{|}`'
  end
  if string.sub(channel, 1, 1) == '$' and channel ~= '$all'
    and not string.find(channel, '^%$user%..') and not string.find(channel, '^%$conn%..') then
    return 'names that begin with $ are reserved: only $all, $user.<subject> and $conn.<id> exist'
  end
  if #event > 200 then return "an event's type is at most 200 bytes, this one has " .. #event end
  if string.find(event, '[%z\r\n]') then return "an event's type has no CR, LF or NUL" end
  if not is_utf8(event) then return "an event's type is UTF-8" end
  if #data > max_bytes then return "an event's data is at most " .. max_bytes .. ' bytes, this has ' .. #data end
  if not is_utf8(data) then return "an event's data is UTF-8" end
  if key and (#key < 1 or #key > 128) then return 'an idempotency key is 1 to 128 bytes, this one has ' .. #key end
end

-- name: <prefix><channel>. key: nil for none. Answers the position as text, nil on a channel without history.
local function publish_directly(name, prefix, announce, event, data, key, max_bytes)
  local channel = string.sub(name, #prefix + 1)
  local wrong = complaint(channel, event, data, key, max_bytes)
  if wrong then return redis.error_reply('ERR ' .. wrong .. ': nothing was published') end

  local limits = prefix .. 'limits:{' .. name .. '}'
  local found = redis.call('GET', limits)
  local size, age, memory, lifetime = string.match(found or DEFAULT_LIMITS, '^(%d+) (%d+) (%d+) (%d+)')
  if not size then return redis.error_reply('ERR the limits in ' .. limits .. ' cannot be read: nothing was published') end
  if not found and string.sub(channel, 1, 1) == '$' then size = '0' end

  memory = number(math.max(tonumber(memory), 1))
  local answers = publish({
    log = prefix .. 'log:{' .. name .. '}', idempotency = prefix .. 'idempotency:{' .. name .. '}',
    announce = announce, name = name,
    lifetime = tonumber(lifetime), size = number(tonumber(size)), age = tonumber(age), memory = memory,
  }, {event == 'message' and '' or event, data, key or ''}, 1)
  local answer = answers.err and answers or answers[1]
  if failed(answer) then return answer end
  -- They live as long as the log that they are for.
  if found then redis.pcall('EXPIRE', limits, memory) end
  return answer ~= '' and answer
end
