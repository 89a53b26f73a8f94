-- Everything under some keys (hashes), with the clock and the server's id, without changing anything.
local t = redis.call('TIME')
local found = { t[1] * 1000000 + t[2], string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') .. STAMP }
for i, key in ipairs(KEYS) do found[i + 2] = redis.call('HGETALL', key) end
return found
