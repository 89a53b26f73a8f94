-- Gives a run's own sets the job's names and removes the names that are gone, in one step.
-- KEYS: hash of what was published, then for each set: own key, its cells, name; then the names that are gone
-- ARGV: number of sets, for each set: name, milliseconds to live (0: for ever)
-- Returns the name of a set that is neither there nor published (then nothing was changed), else ''.
local sets = tonumber(ARGV[1])
for i = 1, sets do
  local name = ARGV[2 * i]
  local there = redis.call('EXISTS', KEYS[3 * i - 1]) == 1
  if not there and redis.call('HEXISTS', KEYS[1], name) == 0 then return name end
end
for i = 1, sets do
  local own, cells, public = KEYS[3 * i - 1], KEYS[3 * i], KEYS[3 * i + 1]
  if redis.call('EXISTS', own) == 1 then
    redis.call('HSET', KEYS[1], ARGV[2 * i], redis.call('ZCARD', own))
    redis.call('UNLINK', public, cells)
    redis.call('RENAME', own, public)
    local expire = tonumber(ARGV[2 * i + 1])
    if expire > 0 then redis.call('PEXPIRE', public, expire) else redis.call('PERSIST', public) end
  end
end
for i = 3 * sets + 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return ''
