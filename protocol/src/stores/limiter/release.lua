-- Gives a shard's claim back, when it is still this holder's. KEYS 1: the claim. ARGV 1: publication; 2: holder.
local v = redis.call('HMGET', KEYS[1], 'publication', 'holder')
if v[1] == ARGV[1] and v[2] == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
