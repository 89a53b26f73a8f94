-- Puts back what operators said and the closures that were kept, when the state was lost: the same function as
-- `limit::State::put_back`. KEYS 1: the closures. ARGV 1: server id in tests, else empty; then names and texts.
-- Returns 1 when it was lost.
local server = (ARGV[1] ~= '' and ARGV[1] or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')) .. STAMP
if redis.call('HGET', KEYS[1], '#id') == server then return 0 end
-- A newer build's are not touched.
if tonumber(redis.call('HGET', KEYS[1], '#layout') or 1) > LAYOUT then return 0 end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(name, 1, 5) == '#hold' or string.byte(name) == 61 then redis.call('HDEL', KEYS[1], name) end
end
for i = 2, #ARGV, 2 do
  local name, text = ARGV[i], ARGV[i + 1]
  local first, known = string.byte(name), nil
  if first ~= 35 and first ~= 61 then
    known = string.match(redis.call('HGET', KEYS[1], name) or '', '^%d+')
  end
  if not known or tonumber(known) < tonumber(string.match(text, '^%d+')) then
    redis.call('HSET', KEYS[1], name, text)
  end
end
redis.call('HSET', KEYS[1], '#id', server)
return 1
