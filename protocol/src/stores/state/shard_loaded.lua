-- Marks a shard loaded and keeps what it came to; a receipt of an earlier round that comes late changes nothing.
-- KEYS: loaded bitmap, summaries   ARGV: shard, its newest round, summary
redis.call('SETBIT', KEYS[1], ARGV[1], 1)
local known = redis.call('HGET', KEYS[2], ARGV[1])
local round = known and tonumber(string.match(known, '^%d+')) or -1
if round <= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end
return redis.call('BITCOUNT', KEYS[1])
