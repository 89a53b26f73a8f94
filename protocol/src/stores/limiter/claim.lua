-- Takes a shard's claim: when it is free, or held for the same publication (a redelivery takes over at once).
-- One that was given back is free.
-- KEYS 1: the claim. ARGV 1: publication; 2: holder; 3: milliseconds. Returns -1 (ours) or for how long it is busy.
local stored = redis.call('HGET', KEYS[1], 'publication')
if stored and stored ~= '' and stored ~= ARGV[1] then return math.max(redis.call('PTTL', KEYS[1]), 0) end
redis.call('HSET', KEYS[1], 'publication', ARGV[1], 'holder', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return -1
