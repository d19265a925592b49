-- Up to `want` equal calls of each client, all of its limits or none: authz/core/quota.py `admit`, step by step.
-- KEYS[i]    one client's one key; its value is 18 bytes a limit: tag (6), at_us (8), amount (4), big endian
-- ARGV[1]    8 bytes that come back first in the reply; 8 more only in tests: now in µs instead of Redis's own clock
-- ARGV[i+1]  what KEYS[i] is asked: want (4), cost (4), and 27 bytes a limit: tag (6), kind (1; plus 128 in Shadow mode),
--            unit (8), full (8), count (4)
-- Returns    the 8 bytes, now (8), and for each key: admitted (4), and for each limit what it held before: from_us (8),
--            used (8). A refusal writes nothing.
-- All numbers are integers below 2^53 (authz/policy/limits.py proves it), so doubles hold them exactly.
local RATE, HOUR, DAY, SHADOW = 0, 1, 2, 128 -- 3 is a month
local HOUR_US, DAY_US = 3600000000, 86400000000
local floor, min, pack, unpack = math.floor, math.min, struct.pack, struct.unpack

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
      place = place + 18
      if place > #raw then return nil end
    end
  end
  return unpack('>I8I4', raw, place + 6)
end

local function charge(key, ask)
  local want, cost = unpack('>I4I4', ask)
  local raw = redis.pcall('GET', key)
  if not raw then
    raw = ''
  elseif type(raw) == 'table' then
    if string.sub(raw.err, 1, 9) ~= 'WRONGTYPE' then error(raw) end
    raw = '' -- somebody else's value under our key: replaced
  elseif #raw % 18 ~= 0 then
    raw = ''
  end
  local admitted = want
  local count_of, kinds, tags, units, fulls, froms, useds = {}, {}, {}, {}, {}, {}, {}
  local n, position = 0, 9
  while position <= #ask do
    local tag, kind, unit, full, count
    tag, kind, unit, full, count, position = unpack('>c6BI8I8I4', ask, position)
    n = n + 1
    local enforced = kind < SHADOW
    if not enforced then kind = kind - SHADOW end
    local at, amount = find(raw, tag, n * 18 - 17)
    local from, used = now, 0
    if kind == RATE then
      if at and at >= now then
        used = min(min(at - now, floor(full / count) + 1) * count + min(amount, count), full)
      end
    else
      local to
      from, to = window(kind, now)
      if at and at >= from then
        if at >= to then from = window(kind, at) end
        used = min(amount, full)
      end
    end
    if enforced and used + admitted * cost * unit > full then admitted = floor((full - used) / (cost * unit)) end
    tags[n], kinds[n], units[n], fulls[n], count_of[n], froms[n], useds[n] = tag, kind, unit, full, count, from, used
  end
  local reply = {pack('>I4', admitted)}
  for i = 1, n do reply[i + 1] = pack('>I8I8', froms[i], useds[i]) end
  if admitted == 0 then return table.concat(reply) end
  local value, idle = {}, now
  for i = 1, n do
    local each = cost * units[i]
    -- Where they do not all fit (only in Shadow mode), as many as do.
    local used = useds[i] + min(admitted, floor((fulls[i] - useds[i]) / each)) * each
    local until_us
    if kinds[i] == RATE then
      local remainder = used % count_of[i]
      local at = now + (used - remainder) / count_of[i]
      value[i] = pack('>c6I8I4', tags[i], at, remainder)
      until_us = at + (remainder > 0 and 1 or 0)
    else
      value[i] = pack('>c6I8I4', tags[i], froms[i], used)
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
