-- Gives a shard's claim back, when it is still this holder's. For a while it stays nobody's, and not missing: a missing
-- one was lost with Redis, and whoever slept with it in hand would take it again and call what others have finished.
-- KEYS 1: the claim. ARGV 1: publication; 2: holder; 3: how long it is remembered, milliseconds.
local v = redis.call('HMGET', KEYS[1], 'publication', 'holder')
if v[1] == ARGV[1] and v[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'publication', '', 'holder', '')
  return redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0
