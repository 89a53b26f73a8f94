-- Sets a quota's mark, which lies in S3 already: the same function as `limit::State::set_mark`.
-- KEYS 1: the quota. ARGV 1: the window's opening; 2: clock of the answer that asked for it; 3: highest mark
-- found; 4: the mark that was put; 5, in tests alone: server id. Returns 1 when it was taken.
local server = (ARGV[5] or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')) .. STAMP
local v = redis.call('HMGET', KEYS[1], 'id', 'opened', 'mark', 'lost')
if v[1] ~= server or tonumber(v[2]) ~= tonumber(ARGV[1]) then return 0 end
if v[4] ~= '' then
  if tonumber(ARGV[2]) < tonumber(v[4]) then return 0 end
  redis.call('HSET', KEYS[1], 'count', ARGV[3], 'mark', ARGV[4], 'lost', '')
elseif tonumber(ARGV[4]) > tonumber(v[3]) then
  redis.call('HSET', KEYS[1], 'mark', ARGV[4])
end
return 1
