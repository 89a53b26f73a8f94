-- Who collects which lanes, by this server's clock. KEYS: the takers (a sorted set: choice -> seen last, in seconds)
-- ARGV: the choice of whoever tells, or '' to look; for how many seconds it is believed
local now = tonumber(redis.call('TIME')[1])
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 10 * ARGV[2])
  redis.call('EXPIRE', KEYS[1], 10 * ARGV[2])
  return {}
end
return redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[2], '+inf')
