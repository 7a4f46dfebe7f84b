-- Publishing events of one channel: their entries in its log and their announcements, in one step. Every way to
-- publish, be it a script or the function library, begins with this text, so that no two of them can differ.

-- What holds for a channel without a limits key: size, age in µs, memory in s, lifetime of idempotency keys in s.
local DEFAULT_LIMITS = '1000 600000000 604800 600'

-- All digits: Lua's own way to write a number loses some. `%d` costs half of `%.0f`, and has 64 bits on most servers,
-- which is found out when first needed: nothing can be called while a function library is being loaded.
local whole
local function number(value)
  whole = whole or string.format('%d', 2 ^ 53) == '9007199254740992' and '%d' or '%.0f'
  return string.format(whole, value)
end

local function failed(answer)
  return type(answer) == 'table' and answer.err ~= nil
end

-- Where the log ends: time (as text too) and number of the last position ever given, which outlives trimming, DUMP and
-- RESTORE; and where it begins: the time of the oldest entry kept, nil if none is. A new line's identity is the moment
-- before its first entry. Answers nil and what the server said where it does not say all that.
local function line_of(log, now)
  -- If the clock went back or stood still, the next entry is later by an amount that another server would not choose too.
  local step = 1 + now % 1000
  -- Without FULL the newest entry is in the answer too, whole.
  local info = redis.pcall('XINFO', 'STREAM', log, 'FULL', 'COUNT', '1')
  if info.err then
    if not string.find(info.err, 'no such key', 1, true) then return nil, info end
    return {micros = now - 1, text = number(now - 1), seq = 0, step = step}
  end
  local micros, seq, oldest
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      micros, seq = string.match(info[i + 1], '^(%d+)-(%d+)$')
    elseif info[i] == 'entries' and info[i + 1][1] then
      oldest = string.match(info[i + 1][1][1], '^%d+')
    end
  end
  if not micros then return nil, redis.error_reply('ERR XINFO STREAM names no last-generated-id') end
  return {micros = tonumber(micros), text = micros, seq = tonumber(seq), step = step, oldest = tonumber(oldest)}
end

-- One hash per channel: k<key> is what was answered and until when it holds; n<number> the keys in order, from which
-- the oldest are forgotten. Answers the position, nil for a key that is not known, or what the server said.
local function recall(p, now, key)
  local known = redis.pcall('HGET', p.idempotency, 'k' .. key)
  if failed(known) then return known end
  local position, expires = string.match(known or '', '^(%S*) (%d+)$')
  if not position or tonumber(expires) <= now then return nil end
  -- A write, so that a WAIT after a repeat waits for something.
  local renewed = redis.pcall('EXPIRE', p.idempotency, number(p.lifetime * 2))
  return failed(renewed) and renewed or position
end

-- Called after the entries are written, when nothing may fail any more: what cannot be done is left.
local function forget_oldest(p, now, new_keys)
  local idempotency, count = p.idempotency, #new_keys
  local tail = redis.pcall('HINCRBY', idempotency, 'tail', count)
  if type(tail) == 'number' then
    local numbered = {}
    for i, key in ipairs(new_keys) do
      numbered[2 * i - 1], numbered[2 * i] = 'n' .. number(tail - count + i), key
    end
    redis.pcall('HSET', idempotency, unpack(numbered))
  end
  local head = redis.pcall('HGET', idempotency, 'head')
  head = type(head) == 'string' and tonumber(head) or 0
  -- More than came, so that what has gathered goes; few more, so that nobody waits for it.
  for _ = 1, 6 + 2 * count do
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
  redis.pcall('EXPIRE', idempotency, number(p.lifetime * 2))
end

-- Remembers an event's key, writes its entry at the end of `line` (nil: no history), and announces it. trim: '=' for
-- the last event of a call; '~' before it, which costs less and never trims more.
-- Answers its position ('' without history); or what the server said, and then has written nothing, and true if those
-- that follow would fare no better.
local function append(p, line, now, event, data, key, trim)
  -- A gateway's type may have the event's traceparent in a line of its own.
  local version, traced, span = '\255\1', '', nil
  local line_break = string.find(event, '\n', 1, true)
  if line_break then
    span = string.sub(event, line_break + 1)
    version, traced, event = '\255\2', span .. ' ', string.sub(event, 1, line_break - 1)
  end
  local micros = now
  if line and micros <= line.micros then micros = line.micros + line.step end
  local text = number(micros)
  local position = line and text .. '-' .. number(line.seq + 1) or ''

  -- Before the entry: were it refused after it, a retry would double the event.
  if key ~= '' then
    p.expires = p.expires or ' ' .. number(now + p.lifetime * 1000000)
    local noted = redis.pcall('HSET', p.idempotency, 'k' .. key, position .. p.expires)
    if failed(noted) then return noted, false end
  end
  local written
  if line and span then
    written = redis.pcall('XADD', p.log, 'MAXLEN', trim, p.size, position,
      'event', event, 'data', data, 'prev', line.text, 'traceparent', span)
  elseif line then
    written = redis.pcall('XADD', p.log, 'MAXLEN', trim, p.size, position,
      'event', event, 'data', data, 'prev', line.text)
  else
    written = redis.pcall(p.announce, p.name, version .. text .. '-0 0 ' .. traced .. event .. '\n' .. data)
  end
  if failed(written) then
    if key ~= '' then
      -- Out of date first, by the command that has just been allowed.
      redis.pcall('HSET', p.idempotency, 'k' .. key, ' 0')
      redis.pcall('HDEL', p.idempotency, 'k' .. key)
    end
    return written, true
  end
  -- From here on nothing may fail: the event is out, and an error would make the publisher double it.
  if line then
    -- What is announced later is told what that takes.
    if p.later then
      position = position .. ' ' .. line.text
    else
      redis.pcall(p.announce, p.name,
        version .. position .. ' ' .. line.text .. ' ' .. traced .. event .. '\n' .. data)
    end
    line.micros, line.text, line.seq, line.trimmed = micros, text, line.seq + 1, trim == '='
    -- Writing an entry takes longer than this, so no call gets ahead of the clock.
    line.step = 1
  end
  return position
end

-- p: log, idempotency (keys); announce (PUBLISH or SPUBLISH), name (the pub/sub channel); later (true: what stands in
-- the log is announced by the caller, once it is on replicas: its position is answered with the µs before it); size (0: no history) and
-- memory in s (text), age in µs and lifetime in s (numbers).
-- events: from index `first` on, each event's type ('' for none; and after a line break its traceparent), data, and idempotency key ('' for none).
-- Answers what became of each, in order, its position ('' without history) or an error; a table with the number of each
-- one whose key was known, or nil; and whether any was accepted. Or answers one error, and then has written nothing.
local function publish(p, events, first)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

  -- Servers older than 7.0 cannot be asked; there the announcement is lost, and found by the comparison of tops.
  if redis.acl_check_cmd and not redis.acl_check_cmd(p.announce, p.name, '') then
    return redis.error_reply('NOPERM this user may not ' .. p.announce .. ' to ' .. p.name .. ': nothing was written')
  end

  local answers, accepted, repeated, new_keys = {}, false, nil, nil
  local line, refusal
  for i = first, #events, 3 do
    local key, nth = events[i + 2], #answers + 1
    -- Where the log took no entry, what came after it is not tried: it would stand there without the one before it.
    local answer = refusal
    if not answer and key ~= '' then
      answer = recall(p, now, key)
      if answer and not failed(answer) then
        accepted, repeated = true, repeated or {}
        repeated[nth] = true
      end
    end
    if not answer and not line and p.size ~= '0' then
      line, refusal = line_of(p.log, now)
      answer = refusal
    end
    if not answer then
      local hopeless
      answer, hopeless = append(p, line, now, events[i], events[i + 1], key, i + 2 == #events and '=' or '~')
      if hopeless then
        refusal = answer
      elseif not failed(answer) then
        accepted = true
        if key ~= '' then
          new_keys = new_keys or {}
          new_keys[#new_keys + 1] = key
        end
      end
    end
    answers[nth] = answer
  end

  if line and line.trimmed ~= nil then
    if not line.trimmed then redis.pcall('XTRIM', p.log, 'MAXLEN', '=', p.size) end
    if line.oldest and line.oldest < now - p.age then
      redis.pcall('XTRIM', p.log, 'MINID', '=', number(now - p.age))
    end
    redis.pcall('EXPIRE', p.log, p.memory)
  end
  if new_keys then forget_oldest(p, now, new_keys) end
  return answers, repeated, accepted
end
