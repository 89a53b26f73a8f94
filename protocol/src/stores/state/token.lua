-- One credential's token, kept for the whole fleet, and the lease of whoever renews it.
-- KEYS: the token   ARGV: what, then by what it is
-- Fields: sealed, gen (which token; grows), renew and until (us, Redis' clock), bad (the generation that its provider
-- refused), proven (the generation that a call was answered well with), holder and lease (until when, us), fence, step
-- (of the last one-time code), trouble and pause (why nobody could renew it, and until when that is believed).
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local function int(n) return string.format('%.0f', n) end
local v = call('HMGET', KEYS[1], 'gen', 'renew', 'until', 'bad', 'proven', 'holder', 'lease', 'fence', 'sealed', 'step',
  'trouble', 'pause')
local function num(i) return tonumber(v[i]) or 0 end
local gen, renew, till, bad, lease, fence = num(1), num(2), num(3), num(4), num(7), num(8)
local good = v[9] and gen > bad and now < till
local what = ARGV[1]
-- A record without a token outlives every one-time code.
local function keep_for(us) call('PEXPIRE', KEYS[1], int(math.floor(us / 1000) + 86400000)) end

-- look: holder, lease us. Replies {gen, sealed, renew in us, until in us, fence (0: not ours to renew), held for us,
-- step of the last code, trouble}
if what == 'look' then
  local step, trouble = v[10] or '', (num(12) > now and v[11]) or ''
  if good and now < renew then return { int(gen), v[9], int(renew - now), int(till - now), '0', '0', step, '' } end
  local taken = v[6] and v[6] ~= '' and v[6] ~= ARGV[2] and lease > now
  local own, held = '0', taken and int(lease - now) or '0'
  if not taken and trouble == '' then
    -- Redis' clock keeps fences growing over a loss of this record.
    fence = math.max(fence + 1, gen + 1, now)
    own = int(fence)
    call('HSET', KEYS[1], 'holder', ARGV[2], 'lease', int(now + ARGV[3]), 'fence', own)
    keep_for(0)
  end
  if good then return { int(gen), v[9], '0', int(till - now), own, held, step, '' } end
  return { '0', '', '0', '0', own, held, step, trouble }
end

local ours = v[6] == ARGV[2] and v[8] == ARGV[3] and ARGV[3] ~= nil

-- keep: holder, fence, lease us. Replies whether the lease is still ours.
if what == 'keep' then
  if not ours then return 0 end
  call('HSET', KEYS[1], 'lease', int(now + ARGV[4]))
  return 1
end

-- step: holder, fence, step. Uses the one-time code of a step up; replies whether it may be used.
if what == 'step' then
  if not ours or (v[10] and tonumber(v[10]) >= tonumber(ARGV[4])) then return 0 end
  call('HSET', KEYS[1], 'step', ARGV[4])
  return 1
end

-- put: holder, fence, sealed, renew after us, lasts us. Gives the lease back; an older holder's token is refused.
if what == 'put' then
  if not ours then return 0 end
  call('HSET', KEYS[1], 'sealed', ARGV[4], 'gen', ARGV[3], 'renew', int(now + ARGV[5]), 'until', int(now + ARGV[6]),
    'holder', '', 'lease', '0', 'trouble', '', 'pause', '0')
  keep_for(tonumber(ARGV[6]))
  return 1
end

-- leave: holder, fence, trouble, for us. Gives the lease back without a token.
if what == 'leave' then
  if not ours then return 0 end
  call('HSET', KEYS[1], 'holder', '', 'lease', '0', 'trouble', ARGV[4], 'pause', int(now + ARGV[5]))
  return 1
end

-- proven: generation.
if what == 'proven' then
  if v[1] == ARGV[2] then call('HSET', KEYS[1], 'proven', ARGV[2]) end
  return 1
end

-- ended: generation, 1 when the caller knows it to have worked. Replies 1: renew it, 0: it never worked. Only who tells
-- it first can hear 0: a token that was told already has been dealt with.
if what == 'ended' then
  if v[1] ~= ARGV[2] or bad >= gen then return 1 end
  call('HSET', KEYS[1], 'bad', v[1])
  if ARGV[3] == '1' or v[5] == ARGV[2] then return 1 end
  return 0
end
return redis.error_reply('unknown: ' .. what)
