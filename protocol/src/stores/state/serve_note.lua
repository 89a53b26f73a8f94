-- Remembers a note unless a later holder has come. KEYS: fence, notes   ARGV: fence, name, note
local newest = tonumber(redis.call('GET', KEYS[1]) or '0')
if newest > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
