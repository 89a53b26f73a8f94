-- A refusal closes a name for a while: the same function as `limit::State::close`, see there.
-- KEYS 1: the closures. ARGV 1: name; 2: for how long, us; 3: reason; 4 to 8: breaker (strikes, us), longest
-- doubled wait, when a closure is forgotten, the ramp's length; 9, in tests alone: the clock. Returns the strikes.
local t = redis.call('TIME')
local now = ARGV[9] and tonumber(ARGV[9]) or t[1] * 1000000 + t[2]
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
local name, length, reason = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local breaker, breaker_us, longest, forgotten, ramp_over =
  tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local till, strikes, probe, ramp, after, was =
  string.match(redis.call('HGET', KEYS[1], name) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
if till then
  till, strikes, probe, ramp, after = tonumber(till), tonumber(strikes), tonumber(probe), tonumber(ramp), tonumber(after)
  local over = (ramp > 0 and now >= ramp + ramp_over)
    or (probe == 0 and ramp == 0 and now >= till + forgotten)
  if over then till = nil end
end
if not till then
  till, strikes, probe, ramp, after = now + length, 0, 0, 0, 0
elseif not (till <= now and (probe > 0 or ramp > 0)) then
  if now + length > till then till = now + length else reason = was end
else
  strikes = ramp > 0 and 0 or strikes + 1
  -- Maintenance ends by itself.
  if reason == 'maintenance' then strikes = math.min(strikes, breaker - 1) end
  probe, ramp, after = 0, 0, 0
  if strikes >= breaker then
    till, reason = now + math.max(breaker_us, length), 'breaker:' .. reason
  else
    till = now + math.min(length * 2 ^ strikes, math.max(longest, length))
  end
end
redis.call('HSET', KEYS[1], name,
  string.format('%.0f %.0f %.0f %.0f %.0f %s', till, strikes, probe, ramp, after, reason))
return strikes
