-- Decides about all limits of one request at once: all of them have room and are used, or none is. Everything happens at
-- the time of this server, so that all gateways agree.
--
-- KEYS: one for each limit. ARGV: seven whole numbers for each:
--   how     0: it refuses; 1: it only counts; 2: it is used, whatever is left
--   scale   of a rate: units in a microsecond; 0 for a window
--   length  of a window in seconds; 0 for a month of the calendar
--   room    what can be used at once
--   most    what can be used and owed
--   needed  what must be left
--   cost    what is used
-- A rate counts in units of time. What is kept for it is the time at which nothing would count any more, in nanoseconds
-- since 1970: more digits than a number has here, so the last three are taken by themselves. What is kept for a window is
-- its end in seconds since 1970, a colon, and what was used.
--
-- Answers with 1 or 0, whether the request may pass, and three numbers for each limit: the time to wait (-1 for none, units
-- of time for a rate, microseconds for a window), what is used now, and the seconds until the window ends.

local floor = math.floor
local DAY = 86400

local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000000 + tonumber(time[2])

-- The first day of the month that this day is in; days since 1970. Counted in years that begin with March and eras of 400
-- years, in which the leap day is always the last one.
local function month_of(day)
  local of_era = (day + 719468) % 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - 365 * year - floor(year / 4) + floor(year / 100)
  local month = floor((5 * of_year + 2) / 153)
  return day - of_year + floor((153 * month + 2) / 5)
end

local function window_end(length)
  if length > 0 then return second - second % length + length end
  return month_of(month_of(floor(second / DAY)) + 31) * DAY
end

local function used_of_rate(kept, scale, most)
  local micros, nanos = tonumber(kept:sub(1, -4)), tonumber(kept:sub(-3))
  if not micros or not nanos then return 0 end
  -- A limit that counts in microseconds rounds up.
  local rest = scale == 1 and math.ceil(nanos / 1000) or nanos
  return math.max(0, math.min((micros - now) * scale + rest, most))
end

-- What was used in the window that counts, and its end. A clock that is behind the one that came before it does not open a
-- window again; one that is far behind does not keep it shut.
local function used_of_window(kept, length)
  local finish = window_end(length)
  local kept_end, used = kept:match('^(%d+):(%d+)$')
  kept_end = tonumber(kept_end) or 0
  local longest = length > 0 and length or 31 * DAY
  if kept_end < finish or kept_end - finish > longest then return 0, finish end
  return tonumber(used), kept_end
end

local all = redis.call('MGET', unpack(KEYS))
local granted, answer, limits = 1, {1}, {}
for at = 1, #KEYS do
  local number = {}
  for n = 1, 7 do number[n] = tonumber(ARGV[7 * at - 7 + n]) end
  local how, scale, length, room, most, needed, cost = unpack(number)
  local kept, used, finish = all[at] or '', 0, 0
  if scale > 0 then
    used = used_of_rate(kept, scale, most)
  else
    used, finish = used_of_window(kept, length)
  end
  local over, wait = used + needed - room, -1
  if how ~= 2 and over > 0 then
    wait = scale > 0 and over or math.max(finish * 1000000 - now, 0)
    if how == 0 then granted = 0 end
  end
  answer[3 * at - 1], answer[3 * at], answer[3 * at + 1] = wait, used, math.max(finish - second, 0)
  if wait < 0 and cost > 0 then
    limits[at] = {scale = scale, finish = finish, used = math.min(used + cost, most)}
  end
end
answer[1] = granted
if granted == 0 then return answer end

for at, limit in pairs(limits) do
  local used, scale = limit.used, limit.scale
  answer[3 * at] = used
  if scale > 0 then
    local micros = floor(used / scale)
    local kept = string.format('%.0f%03d', now + micros, scale == 1 and 0 or used % scale)
    redis.call('SET', KEYS[at], kept, 'PX', floor(micros / 1000) + 1)
  else
    local kept = string.format('%.0f:%.0f', limit.finish, used)
    redis.call('SET', KEYS[at], kept, 'PX', math.max(floor(limit.finish * 1000 - now / 1000) + 1, 1))
  end
end
return answer
