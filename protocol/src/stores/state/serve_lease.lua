-- Takes or renews the lease of starting runs. KEYS: lease, fence   ARGV: holder, milliseconds
-- Returns the holder's fence, 0 when somebody else has the lease.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
local fence
if holder then
  fence = redis.call('GET', KEYS[2])
end
fence = fence or redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(fence)
