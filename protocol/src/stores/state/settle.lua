-- Counts one block of a run and applies its members to the run's own sets, once.
-- KEYS: settled bitmap, progress, progress by value, names of the sets, then for each set: itself, its cells
-- ARGV: bit, succeeded, empty, failed, records, no longer failed, calls, busy ms, number of values,
--       for each value: value, succeeded, empty, failed; for each set: name, keep, number of members,
--       for each member: member, score, cell
-- The first write is the bit: a server out of memory refuses it and then nothing is done.
if redis.call('SETBIT', KEYS[1], ARGV[1], 1) == 1 then return 0 end

local function add(key, field, by)
  if by ~= 0 then redis.call('HINCRBY', key, field, by) end
end
add(KEYS[2], 'succeeded', tonumber(ARGV[2]))
add(KEYS[2], 'empty', tonumber(ARGV[3]))
add(KEYS[2], 'failed', tonumber(ARGV[4]) - tonumber(ARGV[6]))
add(KEYS[2], 'records', tonumber(ARGV[5]))
add(KEYS[2], 'blocks', 1)
add(KEYS[2], 'calls', tonumber(ARGV[7]))
add(KEYS[2], 'busy_ms', tonumber(ARGV[8]))

local at = 10
for _ = 1, tonumber(ARGV[9]) do
  add(KEYS[3], 's:' .. ARGV[at], tonumber(ARGV[at + 1]))
  add(KEYS[3], 'e:' .. ARGV[at], tonumber(ARGV[at + 2]))
  add(KEYS[3], 'f:' .. ARGV[at], tonumber(ARGV[at + 3]))
  at = at + 4
end

local apply = {
  min = function(key, _, member, score) redis.call('ZADD', key, 'LT', score, member) end,
  max = function(key, _, member, score) redis.call('ZADD', key, 'GT', score, member) end,
  sum = function(key, _, member, score) redis.call('ZINCRBY', key, score, member) end,
  last = function(key, cells, member, score, cell)
    local known = redis.call('ZSCORE', cells, member)
    if known and tonumber(known) > tonumber(cell) then return end
    redis.call('ZADD', key, score, member)
    redis.call('ZADD', cells, cell, member)
  end,
}
for set = 5, #KEYS, 2 do
  redis.call('SADD', KEYS[4], ARGV[at])
  local keep, members = apply[ARGV[at + 1]], tonumber(ARGV[at + 2])
  at = at + 3
  for _ = 1, members do
    keep(KEYS[set], KEYS[set + 1], ARGV[at], ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  end
end
return 1
