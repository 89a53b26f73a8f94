-- Closes a name (`*`: the provider) for a while, unless it is closed longer already.
-- KEYS 1: the closures. ARGV 1: name; 2: for how long, us; 3: reason;
-- 4, in tests alone: until when instead.
local t = redis.call('TIME')
local till = ARGV[4] and tonumber(ARGV[4]) or t[1] * 1000000 + t[2] + tonumber(ARGV[2])
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and tonumber(string.match(stored, '^(%d+)')) >= till then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', till, ARGV[3]))
return 1
