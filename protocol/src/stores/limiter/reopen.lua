-- Somebody looked: everything that answers closed gets its probe, as `limit::State::reopen`. What operators said
-- (`#...`, `=...`) stays. KEYS 1: the closures. ARGV 1: the only one that is meant, empty for all; ARGV 2, in tests alone:
-- the clock. Returns how many there were.
local t = redis.call('TIME')
local now = ARGV[2] and tonumber(ARGV[2]) or t[1] * 1000000 + t[2]
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
local v, closures = redis.call('HGETALL', KEYS[1]), 0
for i = 1, #v, 2 do
  local first = string.byte(v[i])
  if first ~= 35 and first ~= 61 and (ARGV[1] == '' or ARGV[1] == v[i]) then
    closures = closures + 1
    local c = read_closure(v[i + 1])
    if c then
      redis.call('HSET', KEYS[1], v[i], string.format('%.0f 0 0 0 0 %s', now, c.reason))
    else
      redis.call('HDEL', KEYS[1], v[i])
    end
  end
end
return closures
