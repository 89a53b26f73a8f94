-- Tells how a probe ended: the same function as `limit::State::probed`.
-- KEYS 1: the closures. ARGV 1: the probe's start; 2: how (0 well, 1 not sent, 2 unanswered); 3: when an
-- unanswered one is tried again, us; 4: the clock in tests, else empty; 5 and on: the names of the call.
local t = redis.call('TIME')
local now = ARGV[4] ~= '' and tonumber(ARGV[4]) or t[1] * 1000000 + t[2]
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
local start, how, again = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
for i = 5, #ARGV do
  local c = read_closure(redis.call('HGET', KEYS[1], ARGV[i]))
  if c and c.probe == start and c.till <= now then
    c.probe = 0
    if how == '0' then c.ramp, c.next = now, now end
    if how == '2' then c.till = now + again end
    redis.call('HSET', KEYS[1], ARGV[i], write_closure(c))
  end
end
return 0
