-- A refusal closes a name for a while: the same function as `limit::State::close`, see there.
-- KEYS 1: the closures. ARGV 1: name; 2: for how long, us; 3: reason; 4 to 8: breaker (strikes, us), longest
-- doubled wait, when a closure is forgotten, the ramp's length; 9: after how much of a ramp its pace is known, us;
-- 10, in tests alone: the clock. Returns the strikes.
local t = redis.call('TIME')
local now = ARGV[10] and tonumber(ARGV[10]) or t[1] * 1000000 + t[2]
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
local name, length, reason = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local breaker, breaker_us, longest, forgotten, ramp_over, known_after =
  tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

-- The ramp was refused: the next ones stay a tenth below its pace.
local function slow_down(c)
  if c.least > 0 then
    c.least = math.min(math.floor(least_now(c, now) * 10 / 9), c.refused * 3)
  elseif now - c.ramp >= known_after then
    c.least, c.refused = math.floor(c.mean * 10 / 9), c.mean
  end
end

local c = read_closure(redis.call('HGET', KEYS[1], name))
if not c or is_over(c, now, ramp_over, forgotten) then
  c = { till = now + length, strikes = 0, probe = 0, ramp = 0, next = 0, reason = reason,
    start = 0, mean = 0, least = 0, refused = 0 }
elseif not (c.till <= now and (c.probe > 0 or c.ramp > 0)) then
  if now + length > c.till then c.till, c.reason = now + length, reason end
else
  if c.ramp > 0 and reason == 'throttled' then slow_down(c) end
  c.strikes = c.ramp > 0 and 0 or c.strikes + 1
  -- Maintenance ends by itself.
  if reason == 'maintenance' then c.strikes = math.min(c.strikes, breaker - 1) end
  c.probe, c.ramp, c.next, c.start, c.mean = 0, 0, 0, 0, 0
  if c.strikes >= breaker then
    c.till, c.reason = now + math.max(breaker_us, length), 'breaker:' .. reason
  else
    c.till, c.reason = now + math.min(length * 2 ^ c.strikes, math.max(longest, length)), reason
  end
end
redis.call('HSET', KEYS[1], name, write_closure(c))
return { c.strikes, c.least }
