-- Tells how a probe ended: the same function as `limit::State::probed`.
-- KEYS 1: the closures. ARGV 1: the probe's start; 2: how (0 well, 1 not sent, 2 unanswered); 3: when an
-- unanswered one is tried again, us; 4: the clock in tests, else empty; 5 and on: the names of the call.
local t = redis.call('TIME')
local now = ARGV[4] ~= '' and tonumber(ARGV[4]) or t[1] * 1000000 + t[2]
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
local start, how, again = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
for i = 5, #ARGV do
  local till, strikes, probe, ramp, after, reason =
    string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  if till and tonumber(probe) == start and tonumber(till) <= now then
    till, ramp, after = tonumber(till), tonumber(ramp), tonumber(after)
    if how == '0' then ramp, after = now, now end
    if how == '2' then till = now + again end
    redis.call('HSET', KEYS[1], ARGV[i],
      string.format('%.0f %s 0 %.0f %.0f %s', till, strikes, ramp, after, reason))
  end
end
return 0
