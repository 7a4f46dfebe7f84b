-- Publishes one event: its entry in the channel's log and its announcement, in one step.
-- KEYS: log, idempotency, limits (all in the channel's slot).
-- ARGV: PUBLISH or SPUBLISH, the pub/sub channel, type, data, idempotency key, its lifetime in s,
--       size, age in µs, memory in s. Size 0: no history.
-- Answers {position or '', 1 if the key was known else 0}.

local function number(text)
  return string.format('%.0f', text)
end

local function now_micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The last position ever given, which outlives trimming, DUMP and RESTORE; nil if there is no log.
local function top(log)
  local info = redis.pcall('XINFO', 'STREAM', log)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return nil end
    error(info.err)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local micros, seq = string.match(info[i + 1], '^(%d+)-(%d+)$')
      return tonumber(micros), tonumber(seq)
    end
  end
  error('XINFO STREAM names no last-generated-id')
end

-- One hash per channel: k<key> is what was answered and until when it holds; n<number> the keys in order, from which
-- the oldest are forgotten.
local function remember(idempotency, key, position, now, lifetime)
  redis.pcall('HSET', idempotency, 'k' .. key, position .. ' ' .. number(now + lifetime * 1000000))
  local tail = redis.pcall('HINCRBY', idempotency, 'tail', 1)
  redis.pcall('HSET', idempotency, 'n' .. number(tail), key)
  local head = tonumber(redis.pcall('HGET', idempotency, 'head') or 0)
  for _ = 1, 8 do
    local oldest = redis.pcall('HGET', idempotency, 'n' .. number(head + 1))
    if type(oldest) ~= 'string' then break end
    local known = redis.pcall('HGET', idempotency, 'k' .. oldest)
    if type(known) == 'string' then
      if tonumber(string.match(known, ' (%d+)$')) > now then break end
      redis.pcall('HDEL', idempotency, 'k' .. oldest)
    end
    head = head + 1
    redis.pcall('HDEL', idempotency, 'n' .. number(head))
    redis.pcall('HSET', idempotency, 'head', number(head))
  end
  redis.pcall('EXPIRE', idempotency, number(lifetime * 2))
end

local function publish(keys, args)
  local log, idempotency = keys[1], keys[2]
  local announce, channel, event, data, key = args[1], args[2], args[3], args[4], args[5]
  local lifetime, size, age, memory = tonumber(args[6]), tonumber(args[7]), tonumber(args[8]), tonumber(args[9])
  local now = now_micros()

  if key ~= '' then
    local known = redis.call('HGET', idempotency, 'k' .. key)
    if known then
      local position, expires = string.match(known, '^(%S*) (%d+)$')
      if tonumber(expires) > now then
        -- A write, so that a WAIT after a repeat waits for something.
        redis.call('EXPIRE', idempotency, number(lifetime * 2))
        return {position, 1}
      end
    end
  end

  local position, header = '', number(now) .. '-0 0 '
  if size > 0 then
    local last_micros, last_seq = top(log)
    if not last_micros then
      -- A new line: its identity is the moment before its first entry.
      last_micros, last_seq = now - 1, 0
    end
    local micros = now
    if micros <= last_micros then
      -- The clock went back or stood still: later by an amount that another server would not choose too.
      micros = last_micros + 1 + now % 1000
    end
    position = number(micros) .. '-' .. number(last_seq + 1)
    header = position .. ' ' .. number(last_micros) .. ' '
    redis.call('XADD', log, 'MAXLEN', '=', number(size), position,
      'event', event, 'data', data, 'prev', number(last_micros))
    -- From here on nothing may fail: the entry is written, and an error would make the publisher double it.
    redis.pcall('XTRIM', log, 'MINID', '=', number(math.max(now - age, 0)))
    redis.pcall('EXPIRE', log, number(memory))
  end
  redis.pcall(announce, channel, '\255\1' .. header .. event .. '\n' .. data)
  if key ~= '' then remember(idempotency, key, position, now, lifetime) end
  return {position, 0}
end

return publish(KEYS, ARGV)
