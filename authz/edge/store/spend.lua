-- One client's limits, charged all or none: authz/core/quota.py `spend`, step by step.
-- KEYS[1]  the client's one key; its value is cmsgpack of {name, at_us, amount, name, at_us, amount, ...}
-- ARGV[1]  cost
-- ARGV[2]  now in µs for tests; "" in production: Redis's own clock, read once
-- ARGV[3...] the limits, five values each: "r" name period_us count capacity | "c" name calendar requests 0
-- Returns {wait_us, number of the binding limit (0: charged), now, {at_us, amount, ...} after the call, or as they are}
-- All numbers are integers below 2^53 (authz/policy/limits.py proves it), so doubles hold them exactly.
local cost = tonumber(ARGV[1])
local now
if ARGV[2] == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(ARGV[2])
end

local HOUR, DAY = 3600000000, 86400000000

-- Days since the epoch of the first of a month; month counts from January 1970 = 0.
-- Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, days_from_civil and civil_from_days.
local function first_of_month(month)
  local year = 1970 + math.floor(month / 12)
  local m = month % 12 + 1
  if m <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5)
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local m = mp + (mp < 10 and 3 or -9)
  local year = yoe + era * 400 + (m <= 2 and 1 or 0)
  return (year - 1970) * 12 + m - 1
end

local function window(calendar, at)
  if calendar == 'Hour' then
    local start = at - at % HOUR
    return start, start + HOUR
  end
  local start = at - at % DAY
  if calendar == 'Day' then return start, start + DAY end
  local month = month_of(start / DAY)
  return first_of_month(month) * DAY, first_of_month(month + 1) * DAY
end

local stored = {}
local raw = redis.call('GET', KEYS[1])
if raw then
  local ok, values = pcall(cmsgpack.unpack, raw)
  if ok and type(values) == 'table' then
    for i = 1, #values, 3 do stored[values[i]] = {values[i + 1], values[i + 2]} end
  end
end

-- Debt in 1/count µs of a rate at `now`, never more than a full bucket.
local function debt_of(mark, count, full)
  if not mark or mark[1] < now then return 0 end
  local elapsed = math.min(mark[1] - now, math.floor(full / count) + 1)
  return math.min(elapsed * count + math.min(mark[2], count), full)
end

local function ceil_div(numerator, denominator)
  local remainder = numerator % denominator
  local whole = (numerator - remainder) / denominator
  if remainder > 0 then whole = whole + 1 end
  return whole
end

local packed, charged, untouched, idle, wait, binding = {}, {}, {}, 0, 0, 0
for i = 3, #ARGV, 5 do
  local number = (i - 3) / 5 + 1
  local name, mark = ARGV[i + 1], stored[ARGV[i + 1]]
  local at, amount, held_at, held, until_us, limit_wait
  if ARGV[i] == 'r' then
    local period, count, capacity = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
    local full = capacity * period
    local debt = debt_of(mark, count, full)
    local after = debt + cost * period
    amount = after % count
    at = now + (after - amount) / count
    held = debt % count
    held_at = now + (debt - held) / count
    until_us = at + (amount > 0 and 1 or 0)
    limit_wait = after > full and ceil_div(after - full, count) or 0
  else
    local calendar, requests = ARGV[i + 2], tonumber(ARGV[i + 3])
    local from, to = window(calendar, now)
    held = 0
    if mark and mark[1] >= from then
      from, to = window(calendar, mark[1])
      held = math.min(mark[2], requests)
    end
    at, held_at, until_us = from, from, to
    amount = held + cost
    limit_wait = amount > requests and to - now or 0
  end
  if limit_wait > wait then wait, binding = limit_wait, number end
  if until_us > idle then idle = until_us end
  local p = #packed
  packed[p + 1], packed[p + 2], packed[p + 3] = name, at, amount
  local c = #charged
  charged[c + 1], charged[c + 2] = at, amount
  untouched[c + 1], untouched[c + 2] = held_at, held
end

if wait > 0 then return {wait, binding, now, untouched} end
-- Expiry equals an idle bucket; Redis counts in ms, so round up. Under a test's clock, Redis's own must not expire it.
local life = ARGV[2] == '' and ceil_div(idle - now, 1000) or 60000
redis.call('SET', KEYS[1], cmsgpack.pack(packed), 'PX', math.max(1, life))
return {0, 0, now, charged}
