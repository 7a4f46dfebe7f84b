-- Publishing one event: its entry in the channel's log and its announcement, in one step. Every way to publish, be it a
-- script or the function library, begins with this text, so that no two of them can differ.

-- What holds for a channel without a limits key: size, age in µs, memory in s, lifetime of idempotency keys in s.
local DEFAULT_LIMITS = '1000 600000000 604800 600'

-- All digits: Lua's own way to write a number loses some.
local function number(value)
  return string.format('%.0f', value)
end

local function failed(answer)
  return type(answer) == 'table' and answer.err ~= nil
end

-- The last position ever given, which outlives trimming, DUMP and RESTORE. A new line's identity is the moment before
-- its first entry. Answers time and number, or nil and what the server said.
local function top(log, now)
  local info = redis.pcall('XINFO', 'STREAM', log)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return now - 1, 0 end
    return nil, info
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local micros, seq = string.match(info[i + 1], '^(%d+)-(%d+)$')
      return tonumber(micros), tonumber(seq)
    end
  end
  return nil, redis.error_reply('ERR XINFO STREAM names no last-generated-id')
end

-- One hash per channel: k<key> is what was answered and until when it holds; n<number> the keys in order, from which
-- the oldest are forgotten.
local function recall(idempotency, key, now)
  local known = redis.call('HGET', idempotency, 'k' .. key)
  local position, expires = string.match(known or '', '^(%S*) (%d+)$')
  if position and tonumber(expires) > now then return position end
end

-- Called after the entry is written, when nothing may fail any more: what cannot be done is left.
local function forget_oldest(idempotency, key, now, lifetime)
  local tail = redis.pcall('HINCRBY', idempotency, 'tail', 1)
  if type(tail) == 'number' then redis.pcall('HSET', idempotency, 'n' .. number(tail), key) end
  local head = redis.pcall('HGET', idempotency, 'head')
  head = type(head) == 'string' and tonumber(head) or 0
  for _ = 1, 8 do
    local oldest = redis.pcall('HGET', idempotency, 'n' .. number(head + 1))
    if type(oldest) ~= 'string' then break end
    local known = redis.pcall('HGET', idempotency, 'k' .. oldest)
    if type(known) == 'string' then
      if (tonumber(string.match(known, ' (%d+)$')) or 0) > now then break end
      redis.pcall('HDEL', idempotency, 'k' .. oldest)
    end
    head = head + 1
    redis.pcall('HDEL', idempotency, 'n' .. number(head))
    redis.pcall('HSET', idempotency, 'head', number(head))
  end
  redis.pcall('EXPIRE', idempotency, number(lifetime * 2))
end

-- p: log, idempotency (keys); announce (PUBLISH or SPUBLISH), name (the pub/sub channel), event (type or ''), data,
-- key ('' for none); size (0: no history), age in µs, memory and lifetime in s (numbers).
-- Answers {position or '', 1 if the key was known else 0}, or an error and then has written nothing.
local function publish(p)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

  -- Servers older than 7.0 cannot be asked; there the announcement is lost, and found by the comparison of tops.
  if redis.acl_check_cmd and not redis.acl_check_cmd(p.announce, p.name, '') then
    return redis.error_reply('NOPERM this user may not ' .. p.announce .. ' to ' .. p.name .. ': nothing was written')
  end

  if p.key ~= '' then
    local position = recall(p.idempotency, p.key, now)
    if position then
      -- A write, so that a WAIT after a repeat waits for something.
      redis.call('EXPIRE', p.idempotency, number(p.lifetime * 2))
      return {position, 1}
    end
  end

  local position, prev, header = '', '', number(now) .. '-0 0 '
  if p.size > 0 then
    local last_micros, last_seq = top(p.log, now)
    if not last_micros then return last_seq end
    local micros = now
    if micros <= last_micros then
      -- The clock went back or stood still: later by an amount that another server would not choose too.
      micros = last_micros + 1 + now % 1000
    end
    position, prev = number(micros) .. '-' .. number(last_seq + 1), number(last_micros)
    header = position .. ' ' .. prev .. ' '
  end
  local announcement = '\255\1' .. header .. p.event .. '\n' .. p.data
  local size, oldest, memory = number(p.size), number(math.max(now - p.age, 0)), number(math.max(p.memory, 1))

  -- Before the entry: were it refused after it, a retry would double the event.
  if p.key ~= '' then
    redis.call('HSET', p.idempotency, 'k' .. p.key, position .. ' ' .. number(now + p.lifetime * 1000000))
  end
  local written
  if p.size > 0 then
    written = redis.pcall('XADD', p.log, 'MAXLEN', '=', size, position, 'event', p.event, 'data', p.data, 'prev', prev)
  else
    written = redis.pcall(p.announce, p.name, announcement)
  end
  if failed(written) then
    if p.key ~= '' then
      -- Out of date first, by the command that has just been allowed.
      redis.pcall('HSET', p.idempotency, 'k' .. p.key, ' 0')
      redis.pcall('HDEL', p.idempotency, 'k' .. p.key)
    end
    return written
  end
  -- From here on nothing may fail: the event is out, and an error would make the publisher double it.
  if p.size > 0 then
    redis.pcall('XTRIM', p.log, 'MINID', '=', oldest)
    redis.pcall('EXPIRE', p.log, memory)
    redis.pcall(p.announce, p.name, announcement)
  end
  if p.key ~= '' then forget_oldest(p.idempotency, p.key, now, p.lifetime) end
  return {position, 0}
end
