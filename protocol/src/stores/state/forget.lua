-- Forgets a run's blocks: bits, counters and sets, also what was noted as published.
-- KEYS: names of the sets, settled bitmap, progress, progress by value, hash of what was published, then for each set: itself, its cells
redis.call('UNLINK', unpack(KEYS, 1, 5))
for i = 6, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
