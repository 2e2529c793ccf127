-- Decides about all limits of one request at once: all of them have room and are used, or none is. Everything happens at
-- the time of this server, so that all gateways agree.
--
-- KEYS: one for each limit. ARGV: eight whole numbers for each:
--   how      0: it refuses; 1: it only counts; 2: it is used, whatever is left
--   scale    of a rate: units of time in a microsecond; 0 for a window
--   each     of a rate: the time in which one comes back; of a window: its length in seconds, or 0 for a month
--   burst    how many can be used at once
--   most     how many can be used and owed
--   cost     how many are used; where none are, one must be left all the same
--   fastest  of a rate: the shortest time in which one comes back, by any limit that shares the key
--   bound    of a rate: the largest `most` of any limit that shares the key
-- What is kept for a rate is the time at which nothing would count any more, in nanoseconds since 1970, a colon, and the
-- nanoseconds in which one comes back. The first is more digits than a number has here, so its last three are taken by
-- themselves. The second tells another limit how many were used. What is kept for a window is its end in seconds since
-- 1970, a colon, and what was used.
--
-- Answers with 1 or 0, whether the request may pass, and three numbers for each limit: the time to wait (-1 for none, units
-- of time for a rate, microseconds for a window), what is used now (of a rate, as the time in which it comes back), and the
-- seconds until the window ends.

local call, floor, ceil, max, min = redis.call, math.floor, math.ceil, math.max, math.min
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000000 + time[2]

local function keep_rate(key, used, scale, each)
  local micros, rest = floor(used / scale), scale == 1 and 0 or used % scale
  local kept = string.format('%.0f%03d:%.0f', now + micros, rest, each * 1000 / scale)
  call('SET', key, kept, 'PX', floor(micros / 1000) + 1)
end

local all = call('MGET', unpack(KEYS))
local granted, answer, uses = 1, {1}, {}
for at = 1, #KEYS do
  local arg = 8 * at - 7
  local scale, each = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local burst, cost = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 5])
  local kept, used, finish, unit, wait = all[at], 0, second, 1, -1
  if scale > 0 then
    -- The time in which what was used comes back, one in each `unit`.
    unit = each
    local micros, nanos, was
    if kept then micros, nanos, was = kept:match('^(%d+)(%d%d%d):([1-9]%d*)$') end
    if micros and (micros - now) * scale + nanos > 0 then
      -- A limit that counts in microseconds rounds up.
      local found = (micros - now) * scale + (scale == 1 and ceil(nanos / 1000) or nanos)
      was = was * scale / 1000
      -- What was kept by a limit that holds no more, or of a slower group, comes back as fast as this limit says.
      unit = max(min(was, each), tonumber(ARGV[arg + 6]))
      used = min(unit == was and found or ceil(found * unit / was), ARGV[arg + 7] * unit)
      if used ~= found or unit ~= was then keep_rate(KEYS[at], used, scale, unit) end
    end
  else
    if each > 0 then
      finish = second - second % each + each
    else
      -- The first day of this month, and then of the one 31 days later; days since 1970. Counted in years that begin with
      -- March and eras of 400 years, in which the leap day is always the last one.
      local day = floor(second / 86400) - 31
      for _ = 1, 2 do
        day = day + 31
        local of_era = (day + 719468) % 146097
        local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
        local of_year = of_era - 365 * year - floor(year / 4) + floor(year / 100)
        local month = floor((5 * of_year + 2) / 153)
        day = day - of_year + floor((153 * month + 2) / 5)
      end
      finish = day * 86400
    end
    local kept_end, count
    if kept then kept_end, count = kept:match('^(%d+):(%d+)$') end
    kept_end = tonumber(kept_end) or 0
    -- A clock that is behind the one that came before it does not open a window again; one that is far behind does not keep
    -- it shut.
    if kept_end >= finish and kept_end - finish <= (each > 0 and each or 2678400) then
      finish, used = kept_end, tonumber(count)
    end
  end
  local over, how = used + (max(cost, 1) - burst) * unit, ARGV[arg]
  if over > 0 and how ~= '2' then
    wait = scale > 0 and over or max(finish * 1000000 - now, 0)
    if how == '0' then granted = 0 end
  end
  if unit ~= each and scale > 0 then used = ceil(used * each / unit) end
  answer[3 * at - 1], answer[3 * at], answer[3 * at + 1] = wait, used, max(finish - second, 0)
  if wait < 0 and cost > 0 then
    local step = scale > 0 and each or 1
    local after = max(used, min(used + cost * step, ARGV[arg + 4] * step))
    uses[at] = {after, scale, each, finish}
  end
end
answer[1] = granted
if granted == 0 then return answer end

for at, use in pairs(uses) do
  local used, scale, each, finish = unpack(use)
  answer[3 * at] = used
  if scale > 0 then
    keep_rate(KEYS[at], used, scale, each)
  else
    local kept = string.format('%.0f:%.0f', finish, used)
    call('SET', KEYS[at], kept, 'PX', max(floor(finish * 1000 - now / 1000) + 1, 1))
  end
end
return answer
