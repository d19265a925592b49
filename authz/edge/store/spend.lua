-- Up to `want` equal calls of each client, all of its limits or none: authz/core/quota.py `admit`, step by step.
-- KEYS[i]    one client's one key; its value is 30 bytes a limit: tag (6), at_us (8), amount (4), and the terms that these
--            are counted in: a rate's unit (8) and count (4), a calendar's kind and 0; big endian
-- ARGV[1]    8 bytes that come back first in the reply; 8 more only in tests: now in µs instead of Redis's own clock
-- ARGV[i+1]  what KEYS[i] is asked: want (4), cost (4), and 27 bytes a limit: tag (6), kind (1; plus 128 in Shadow mode,
--            plus 64 with a debit), unit (8), full (8), count (4); and the debit (4), calls that are charged before any
--            is admitted, that cannot be refused and stop at full
-- Returns    the 8 bytes, now (8), and for each key: admitted (4), and for each limit what it held before its debit:
--            from_us (8), used (8). A refusal writes nothing but a debit, and what a limit holds where that is not
--            what is stored.
-- All numbers are integers below 2^53 (authz/policy/limits.py proves it), so doubles hold them exactly.
local RATE, HOUR, DAY, DEBIT, SHADOW = 0, 1, 2, 64, 128 -- 3 is a month
local HOUR_US, DAY_US = 3600000000, 86400000000
local SIZE = 30
local floor, ceil, min, pack, unpack = math.floor, math.ceil, math.min, struct.pack, struct.unpack

local now
local tested = #ARGV[1] > 8
if tested then
  now = unpack('>I8', ARGV[1], 9)
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Days since the epoch of the first of a month; month counts from January 1970 = 0.
-- Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, days_from_civil and civil_from_days.
local function first_of_month(month)
  local year = 1970 + floor(month / 12)
  local m = month % 12 + 1
  if m <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local yoe = year - era * 400
  local doy = floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5)
  return era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + doy - 719468
end

local function month_of(day)
  local z = day + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local m = mp + (mp < 10 and 3 or -9)
  local year = yoe + era * 400 + (m <= 2 and 1 or 0)
  return (year - 1970) * 12 + m - 1
end

local function window(kind, at)
  if kind == HOUR then
    local start = at - at % HOUR_US
    return start, start + HOUR_US
  end
  local start = at - at % DAY_US
  if kind == DAY then return start, start + DAY_US end
  local month = month_of(start / DAY_US)
  return first_of_month(month) * DAY_US, first_of_month(month + 1) * DAY_US
end

-- The state that is filed under a tag, at its usual place or, after an edit of the policy, at another; nil: none.
local function find(raw, tag, place)
  if string.sub(raw, place, place + 5) ~= tag then
    place = 1
    while string.sub(raw, place, place + 5) ~= tag do
      place = place + SIZE
      if place > #raw then return nil end
    end
  end
  return unpack('>I8I4I8I4', raw, place + 6)
end

-- A rate's debt, and whether that is not what is stored; `unit0` and `count0` are the terms of what is stored.
local function debt(at, amount, unit0, count0, unit, full, count)
  local ahead = at - now
  if unit0 ~= unit or count0 ~= count then
    local requests = full / unit
    if unit0 > 0 then
      local rest = ahead % unit0
      requests = min(floor(ahead / unit0) * count0 + ceil((rest * count0 + amount) / unit0), requests)
    end
    return requests * unit, true
  end
  local owed = min(ahead, floor(full / count) + 1) * count + min(amount, count)
  return min(owed, full), owed > full
end

-- The start of a calendar's window, what was used of it, and whether that is not what is stored; `kind0` as above.
local function use(at, amount, kind0, kind, full)
  local from, to = window(kind, now)
  if not at or at > to then return from, 0, false end
  local used = min(amount, full)
  if kind0 == kind then
    if at < from then return from, 0, false end
    return at == to and to or from, used, false
  end
  if at < from then
    if kind0 < HOUR or kind0 > 3 then return from, 0, false end
    local _, end0 = window(kind0, at)
    if end0 <= now then return from, 0, false end
  end
  return from, used, true
end

local function charge(key, ask)
  local want, cost = unpack('>I4I4', ask)
  local raw = redis.pcall('GET', key)
  if not raw then
    raw = ''
  elseif type(raw) == 'table' then
    if string.sub(raw.err, 1, 9) ~= 'WRONGTYPE' then error(raw) end
    raw = '' -- somebody else's value under our key: replaced
  elseif #raw % SIZE ~= 0 then
    raw = ''
  end
  local admitted, stale, repaid = want, false, false
  local reply = {''}
  local count_of, kinds, tags, units, fulls, froms, useds = {}, {}, {}, {}, {}, {}, {}
  local n, position = 0, 9
  while position <= #ask do
    local tag, kind, unit, full, count
    tag, kind, unit, full, count, position = unpack('>c6BI8I8I4', ask, position)
    n = n + 1
    local enforced = kind < SHADOW
    if not enforced then kind = kind - SHADOW end
    local debit = 0
    if kind >= DEBIT then
      kind = kind - DEBIT
      debit, position = unpack('>I4', ask, position)
    end
    local at, amount, unit0, count0 = find(raw, tag, (n - 1) * SIZE + 1)
    local from, used, other = now, 0, false
    if kind ~= RATE then
      from, used, other = use(at, amount, unit0, kind, full)
    elseif at and at >= now then
      used, other = debt(at, amount, unit0, count0, unit, full, count)
    end
    stale = stale or other
    reply[n + 1] = pack('>I8I8', from, used)
    if debit > 0 then
      debit = min(debit, floor((full - used) / unit))
      repaid = repaid or debit > 0
      used = used + debit * unit
    end
    if enforced and used + admitted * cost * unit > full then admitted = floor((full - used) / (cost * unit)) end
    tags[n], kinds[n], units[n], fulls[n], count_of[n], froms[n], useds[n] = tag, kind, unit, full, count, from, used
  end
  reply[1] = pack('>I4', admitted)
  if admitted == 0 and not repaid and (want == 0 or not stale) then return table.concat(reply) end
  local value, idle = {}, now
  for i = 1, n do
    local each = cost * units[i]
    -- Where they do not all fit (only in Shadow mode), as many as do.
    local used = useds[i] + min(admitted, floor((fulls[i] - useds[i]) / each)) * each
    local until_us
    if kinds[i] == RATE then
      local remainder = used % count_of[i]
      local at = now + (used - remainder) / count_of[i]
      value[i] = pack('>c6I8I4I8I4', tags[i], at, remainder, units[i], count_of[i])
      until_us = at + (remainder > 0 and 1 or 0)
    else
      value[i] = pack('>c6I8I4I8I4', tags[i], froms[i], used, kinds[i], 0)
      local _, to = window(kinds[i], froms[i])
      until_us = to
    end
    if until_us > idle then idle = until_us end
  end
  -- Expiry equals an idle bucket; Redis counts in ms, so round up. Under a test's clock, Redis's own must not expire it.
  local life = tested and 60000 or floor((idle - now + 999) / 1000)
  redis.call('SET', key, table.concat(value), 'PX', life > 0 and life or 1)
  return table.concat(reply)
end

local replies = {string.sub(ARGV[1], 1, 8), pack('>I8', now)}
for i = 1, #KEYS do replies[i + 2] = charge(KEYS[i], ARGV[i + 1]) end
return table.concat(replies)
