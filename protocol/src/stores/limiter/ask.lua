-- The limiter's one step: the same function as `limit::decide`, line by line. See the comments there.
--
-- Keys (all of one provider, so of one hash tag; `P` is `<namespace>:{<provider>}`):
--   P:closed            hash   `*` (the provider), a credential's public name or `<limit>:<scope>` ->
--                              what it says (closure.lua); and what operators said:
--                              #id, #layout (absent: 1), #hold<whole> -> `<until us> <reason>`, =<limit's name> -> numbers
--   P:paced:<limit>     hash   since (of points alone), next, id, period, used, before, by -> `<interval> <burst> <period>`, heard -> `<left or -1> <till us> <numbers>`,
--                              nearer -> `<horizon> <until us>`
--   P:leases:<limit>    hash   #id, #opens, #heard -> numbers, <holder> -> `<calls> <expires us> <seq>`
--   P:quota:<limit>     hash   id, opened, count, mark, lost ('' unless the counter was lost), heard -> numbers
--   P:granted:<run>     string grants given to the run
--   P:claim:<shard>     hash   publication, holder; expires
-- where <limit> is `<limit's name>:<scope>`; `id` is the server process' run_id (and the layout from the second one on), whose
-- change means that the record may be older than what it counted. Numbers are `<interval> <burst> <slack> <horizon> <period>|<text>`, or
-- `<calls> <near> 0 0 0|<text>`.
--
-- KEYS  the closures, then the limits, then the runs of the groups, then the claims, as the request lists them.
-- ARGV  1: the request as JSON (`wire.rs`); 2 and 3, in tests alone: clock and server id instead of Redis' own.
-- Reply {now, {group, choice, start - now, slack, probe, ...}, {group, limit, why, opens - now, ...},
--        {lost claims}, {marks wanted}, {resets}, {limit .. ' ' .. numbers in force if not the asker's}}; places count from 0; of a refusal -1 is the provider, -2 the credential.
-- Numbers are microseconds and stay below 2^53; they are written with %.0f, since 14 digits would not do.

local ask = cjson.decode(ARGV[1])
local call = redis.call
local max, min, floor = math.max, math.min, math.floor

local function int(n) return string.format('%.0f', n) end

local now, process
if ARGV[2] then
  now, process = tonumber(ARGV[2]), ARGV[3]
else
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
  process = string.match(call('INFO', 'server'), 'run_id:(%x+)')
end
local server = process .. STAMP

local PACED, IN_FLIGHT, QUOTA, CLOSED, MARK, WINDOW, DEAD, HELD, UNSET, NEWER = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local PROVIDER, KEY = -1, -2
local LATEST, FURTHEST = ask.latest, ask.furthest
local KEEP_MS = 30 * 86400000
local limits, groups, holder = ask.limits, ask.groups, ask.holder
local first_run = 1 + #limits
local first_claim = first_run + #groups
local grants, refusals, lost, marks, resets, changed = {}, {}, {}, {}, {}, {}
local NOTHING = {}

------------------------------------------------------------------------------------------- loading

-- How long a build that is too old waits before it looks again.
local NEWER_AGAIN = 60 * 1000000
local newer_layout = false

-- What is closed or opening again, by name (what is over is dropped), and what operators said.
local closed, any_closed, over, set, hold = {}, false, {}, {}, nil
local unset = ask.keeps
do
  local v, layout = call('HGETALL', KEYS[1]), 1
  for i = 1, #v, 2 do
    local name, text = v[i], v[i + 1]
    local first = string.byte(name)
    if first == 35 then
      if name == '#id' then unset = unset and text ~= server end
      if name == '#layout' then layout = tonumber(text) end
      if name == ask.hold then hold = tonumber(string.match(text, '^%d+')) end
    elseif first == 61 then
      set[string.sub(name, 2)] = text
    else
      local c = read_closure(text)
      if c and is_over(c, now, ask.ramp_over, ask.forgotten) then
        over[#over + 1] = name
      elseif c then
        closed[name], any_closed = c, true
      end
    end
  end
  newer_layout = layout > LAYOUT
  if layout < LAYOUT then call('HSET', KEYS[1], '#layout', LAYOUT) end
end

-- A newer build keeps the budgets: there is nothing for this one any more.
if newer_layout then
  for g = 0, #groups - 1 do
    local n = #refusals
    refusals[n + 1], refusals[n + 2], refusals[n + 3], refusals[n + 4] = g, PROVIDER, NEWER, NEWER_AGAIN
  end
  return { now, grants, refusals, lost, marks, resets, changed, 0 }
end

local FORMS = { paced = '^[rs]', points = '^p', leases = '^c', quota = '^c' }

local function numbers(l, text)
  if not text then return nil end
  local a, b, c, d, e, rule = string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+)|(.*)$')
  if not a or not string.find(rule, FORMS[l.point and 'points' or l.kind]) then return nil end
  return { tonumber(a), tonumber(b), tonumber(c), tonumber(d), tonumber(e), rule }
end

-- The numbers by which a limit is decided: as an operator set it, as answers told, as the asker has it.
local function in_force(l, index, stored, known)
  local h = l.heard or NOTHING
  l.learned = stored
  if h.numbers and (h.fresh or not known) then l.learned = h.numbers end
  local n = numbers(l, set[l.name]) or numbers(l, l.learned)
  if not n then return end
  if l.kind == 'paced' then
    l.interval, l.burst, l.slack, l.horizon, l.period = n[1], n[2], n[3], n[4], n[5]
    if l.point then l.point, l.interval = n[1], max(floor((n[1] + 999) / 1000), 1) end
  else
    l.calls, l.near = n[1], n[2]
  end
  if n[6] ~= l.text then
    changed[#changed + 1], l.changed = int(index) .. ' ' .. n[6], true
  end
end

-- How far a call of so many points moves the next start.
local function charge_of(l, points)
  if not l.point then return l.interval end
  return min(floor((points * l.point + 999) / 1000), ask.most_charge)
end

local function hear_left(l, told)
  local after = max(floor((l.next - told.of) / l.interval) - 1, 0)
  local left, till = max(told.calls - after, 0), min(told.till, now + ask.longest_left)
  if till <= now then return end
  if l.left and math.abs(till - l.till) <= ask.same_reset then
    l.left, l.till = min(left, l.left), max(till, l.till)
  else
    l.left, l.till = left, till
  end
end

-- Where a state goes on that was written by another pace.
local function goes_on(l, v)
  local interval, burst, period = string.match(v[6], '^(%d+) (%d+) (%d+)$')
  local opens = tonumber(v[1]) - tonumber(burst)
  if l.changed and l.burst == 0 and l.interval > tonumber(interval) then
    local passed, used = floor(now / tonumber(period)) - tonumber(v[3]), 0
    if passed == 0 then used = tonumber(v[4]) + tonumber(v[5]) elseif passed == 1 then used = tonumber(v[4]) end
    opens = max(opens, now + min(used * l.interval, l.period + FURTHEST))
  end
  return max(opens, now) + l.burst
end

local function load_paced(l, key, index)
  local v = call('HMGET', key, 'next', 'id', 'period', 'used', 'before', 'by', 'heard', 'nearer')
  local known = v[2] == server
  local left, till, words
  if v[7] then left, till, words = string.match(v[7], '^(%-?%d+) (%d+) (.*)$') end
  in_force(l, index, words, known)
  l.by = int(l.interval) .. ' ' .. int(l.burst) .. ' ' .. int(l.period)
  local cap = now + FURTHEST + l.interval + l.burst
  if known then
    local stored = tonumber(v[1])
    l.next = stored
    if v[6] and v[6] ~= l.by then l.next = goes_on(l, v) end
    l.next = min(l.next, cap)
    l.dirty = l.next ~= stored or (v[6] and v[6] ~= l.by)
    if left and tonumber(left) >= 0 and tonumber(till) > now then l.left, l.till = tonumber(left), tonumber(till) end
    if v[8] then
      local nearer, turn = string.match(v[8], '^(%d+) (%d+)$')
      l.nearer, l.turn = tonumber(nearer), tonumber(turn)
    end
  else
    resets[#resets + 1] = index
    l.next = now + l.horizon + l.interval + l.burst
    -- It begins anew by the numbers in force: not before those of operators are back.
    l.dirty, l.waits = true, unset
  end
  local h = l.heard or NOTHING
  if h.left then hear_left(l, h.left) end
  if h.next and min(h.next, cap) > l.next then l.next, l.dirty = min(h.next, cap), true end
  if h.late and h.late > 0 then l.next, l.dirty = l.next + h.late, true end
  if l.point then
    local since = known and tonumber(call('HGET', key, 'since')) or nil
    if not known and not unset then call('HSET', key, 'since', int(now)) end
    if h.back and since and since < h.back.of then
      l.next, l.dirty = l.next - charge_of(l, h.back.points), true
    end
    if h.more and h.more > 0 then l.next, l.dirty = l.next + charge_of(l, h.more), true end
  end
  l.shown, l.granted = v, 0
end

-- Leases have been written in one way since the first layout: those of calls of an older build count until they end.
local function load_leases(l, key, index)
  local v = call('HGETALL', key)
  local stored = {}
  for i = 1, #v, 2 do stored[v[i]] = v[i + 1] end
  l.was = stored['#heard']
  in_force(l, index, l.was, stored['#id'] == process)
  l.others, l.mine, l.stale, l.dead = 0, l.held, false, {}
  if stored['#id'] ~= process then
    resets[#resets + 1] = index
    l.opens, l.anew = now + ask.blind, true
    return
  end
  l.opens = min(tonumber(stored['#opens']), now + ask.blind)
  for name, lease in pairs(stored) do
    local calls, expires, seq = string.match(lease, '^(%d+) (%d+) (%d+)$')
    if calls then
      if name == holder then l.stale = tonumber(seq) >= ask.seq end
      if tonumber(expires) <= now then
        l.dead[#l.dead + 1] = name
      elseif name ~= holder then
        l.others = l.others + tonumber(calls)
      end
    end
  end
end

local function load_quota(l, key, index)
  local v = call('HMGET', key, 'id', 'opened', 'count', 'mark', 'lost', 'heard')
  local known = v[1] == server
  in_force(l, index, v[6], known)
  l.was = v[6]
  local opened = known and tonumber(v[2])
  if now < l.opened or now >= l.closes or (opened and opened > l.opened) then
    l.kind, l.opens = 'other_window', max(now, l.opened)
    return
  end
  l.lost = nil
  if opened == l.opened then
    l.count, l.mark = tonumber(v[3]), tonumber(v[4])
    if v[5] ~= '' then
      l.lost = min(tonumber(v[5]), now)
      l.dirty = true
    end
  else
    l.dirty, l.count = true, 0
    if known then
      l.mark = l.marked and 0 or l.calls
    else
      resets[#resets + 1] = index
      if l.marked then
        l.mark, l.lost = 0, now
      else
        l.count, l.mark = l.calls, l.calls
      end
    end
  end
  if not l.marked then l.mark = max(l.mark, l.calls) end
  -- Calls of this window that were granted and never sent; what the provider tells counts more.
  local back = l.heard and l.heard.back
  if back and opened == l.opened and back.of >= l.opened and back.of < l.closes then
    l.count, l.dirty = max(l.count - back.points, 0), true
  end
  local used = l.heard and l.heard.used
  if used and used > l.count then l.count, l.dirty = used, true end
end

local loaders = { paced = load_paced, leases = load_leases, quota = load_quota }
for i, l in ipairs(limits) do loaders[l.kind](l, KEYS[1 + i], i - 1) end

------------------------------------------------------------------------------------------- deciding

-- What a closure means for a call: shut until (and whether for good); or the probe; or a ramp's next start.
local function door(c)
  if c.till > now then
    local dead = string.sub(c.reason, 1, 12) == 'auth_expired' or string.sub(c.reason, 1, 7) == 'breaker'
    return c.till, dead and DEAD or CLOSED
  end
  if c.ramp > 0 then return nil, nil, c.next end
  if c.probe > 0 and now < c.probe + ask.probe then return now + ask.probe_again, CLOSED end
  return nil
end

-- When a limit would let the next call start; or nil, why, when it opens.
local function opening(l, points)
  if l.kind == 'paced' then
    local at = l.next - l.burst
    if l.point then at = at + charge_of(l, points) end
    if l.left == 0 and l.till > at then return l.till end
    return at
  end
  if l.kind == 'leases' then
    if l.opens > now then return nil, IN_FLIGHT, l.opens end
    if l.stale or l.others + l.mine >= l.calls then return nil, IN_FLIGHT, now + ask.in_flight_again end
    return now
  end
  if l.kind == 'quota' then
    if not l.lost and l.count >= l.calls then return nil, QUOTA, l.closes end
    if l.lost or l.count >= l.mark then
      l.awaited = true
      return nil, MARK, now
    end
    return l.opened + l.guard
  end
  return nil, WINDOW, l.opens
end

-- The closures of a call, each with what it is named after, the widest first.
local function doors(drawn, key)
  local found = {}
  if not any_closed then return found end
  if closed[ask.whole] then found[1] = { PROVIDER, closed[ask.whole] } end
  if key and closed[key] then found[#found + 1] = { KEY, closed[key] } end
  for d = 1, #drawn do
    local c = closed[limits[drawn[d] + 1].id]
    if c then found[#found + 1] = { drawn[d], c } end
  end
  return found
end

-- Nobody with a horizon like that of a call can have planned beyond one more interval: who did gives it a turn.
local function wait_for_turn(l, start, own)
  if not l.interval or start <= now + own + l.interval then return end
  local turn = l.turn and l.turn > now and l.nearer
  if turn and turn <= own and l.turn > now + floor(ask.nearer / 2) then return end
  l.nearer, l.turn, l.dirty = turn and min(own, turn) or own, now + ask.nearer, true
end

-- The latest start that any limit gives, the slack and whether it is a probe; or nil, limit, why, when it opens.
local function try_call(g, drawn, key)
  local start, binding, slack, own, probe = now + ask.lead, PROVIDER, LATEST, FURTHEST, 0
  local turn, scarce = own, own
  for _, found in ipairs(doors(drawn, key)) do
    local opens, why, at = door(found[2])
    if opens then return nil, found[1], why, opens end
    if not at then
      probe = 1
    elseif at > start then
      start, binding = at, found[1]
    end
  end
  for d = 1, #drawn do
    local index = drawn[d]
    local l = limits[index + 1]
    local at, why, opens = opening(l, g.cost[index] or 1)
    if not at then return nil, index, why, opens end
    if at > start then start, binding = at, index end
    if l.interval then
      if l.slack < slack then slack = l.slack end
      if l.horizon < own then own = l.horizon end
      if l.turn and l.turn > now and l.nearer < turn then turn = l.nearer end
    elseif l.kind == 'leases' and 2 * (l.others + l.mine) >= l.calls then
      scarce = ask.scarce
    end
  end
  local horizon = min(own, turn, scarce)
  if g.yields then horizon = floor(horizon / 2) end
  if start > now + horizon then
    if binding >= 0 then wait_for_turn(limits[binding + 1], start, own) end
    return nil, binding, PACED, start - floor(horizon / 2)
  end
  for d = 1, #drawn do
    local l = limits[drawn[d] + 1]
    if l.kind == 'quota' and start >= l.closes - l.guard then return nil, drawn[d], WINDOW, l.closes end
  end
  return start, slack, probe
end

-- Whether the next credential may serve when this one cannot.
local function may_skip(choice, limit, why)
  return (limit == KEY or choice.own[limit]) and why ~= MARK and why ~= WINDOW
end

-- How much of a credential's own quotas is used up, in millionths of the fullest one.
local function used_of(choice)
  local most = 0
  for _, index in ipairs(choice.limits) do
    local l = limits[index + 1]
    if l.kind == 'quota' then most = max(most, floor(l.count * 1000000 / max(l.calls, 1))) end
  end
  return most
end

-- The credential that can serve first, of several the least used one.
local given = {}
local function least_used(g)
  local best, start, slack, probe, used, got
  local limit, why, opens
  for i = 1, #g.choices do
    local choice = g.choices[i]
    local at, a, b, c = try_call(g, choice.drawn, choice.name)
    if at then
      local u, n = used_of(choice), given[choice.name] or 0
      if not best or at < start or (at == start and (u < used or (u == used and n < got))) then
        best, start, slack, probe, used, got = i, at, a, b, u, n
      end
    elseif not opens or c < opens then
      limit, why, opens = a, b, c
    end
  end
  if best then return start, slack, probe, best end
  return nil, limit, why, opens
end

-- Start, slack, probe and choice of the group's next call; or nil, limit, why, when it opens.
local function next_call(g)
  if #g.choices == 0 then
    local start, a, b, c = try_call(g, g.limits)
    if start then return start, a, b, 0 end
    return nil, a, b, c
  end
  if g.spread then return least_used(g) end
  local best_limit, best_why, best_opens
  for i = 1, #g.choices do
    local choice = g.choices[i]
    local start, a, b, c = try_call(g, choice.drawn, choice.name)
    if start then return start, a, b, i end
    if not may_skip(choice, a, b) then return nil, a, b, c end
    if not best_opens or c < best_opens then best_limit, best_why, best_opens = a, b, c end
  end
  return nil, best_limit, best_why, best_opens
end

local function refuse(group, limit, why, opens)
  local n = #refusals
  refusals[n + 1], refusals[n + 2], refusals[n + 3], refusals[n + 4] = group - 1, limit, why, opens - now
end

local function charge_closure(c, start)
  if not c then return end
  if c.ramp > 0 then
    local seconds = min(max(floor((start - c.ramp) / 1000000), 0), 9)
    local interval = floor(ask.ramp / 2 ^ seconds)
    if c.least > 0 then interval = max(least_now(c, start), floor(2 * c.least / 2 ^ seconds)) end
    c.next, c.dirty = max(c.next, start) + interval, true
    if c.start > 0 then
      local gap = min(max(start - c.start, 0), 10000000)
      c.mean = c.mean == 0 and gap or floor((7 * c.mean + gap) / 8)
    end
    c.start = start
  elseif c.till <= now then
    c.probe, c.dirty = start, true
  end
end

local function grant(group, g, start, slack, probe, choice)
  local drawn = choice == 0 and g.limits or g.choices[choice].drawn
  for d = 1, #drawn do
    local l = limits[drawn[d] + 1]
    if l.kind == 'paced' then
      local points = g.cost[drawn[d]] or 1
      l.next, l.dirty = max(l.next, start) + charge_of(l, points), true
      l.granted = l.granted + (l.point and points or 1)
      if l.left and start < l.till then l.left = max(l.left - 1, 0) end
    elseif l.kind == 'leases' then
      l.mine = l.mine + 1
    else
      l.count, l.dirty = l.count + 1, true
    end
  end
  if any_closed then
    charge_closure(closed[ask.whole], start)
    if choice > 0 then charge_closure(closed[g.choices[choice].name], start) end
    for d = 1, #drawn do charge_closure(closed[limits[drawn[d] + 1].id], start) end
  end
  local n = #grants
  grants[n + 1], grants[n + 2], grants[n + 3], grants[n + 4] = group - 1, choice - 1, start - now, slack
  grants[n + 5] = probe
  if choice > 0 then
    local name = g.choices[choice].name
    given[name] = (given[name] or 0) + 1
  end
  g.granted = g.granted + 1
end

-- What each choice draws from, the group's limits first.
local function join(g)
  g.granted, g.cost = 0, {}
  for _, pair in ipairs(g.points or NOTHING) do g.cost[pair[1]] = pair[2] end
  for _, choice in ipairs(g.choices) do
    choice.drawn, choice.own = {}, {}
    for _, index in ipairs(g.limits) do table.insert(choice.drawn, index) end
    for _, index in ipairs(choice.limits) do
      table.insert(choice.drawn, index)
      choice.own[index] = true
    end
  end
end

-- To the group whose next call can start first, in the order of wish among equals.
local function give()
  hold = hold and hold > now and hold
  if unset or hold then
    for i, g in ipairs(groups) do
      g.granted = 0
      if g.want > 0 then refuse(i, PROVIDER, unset and UNSET or HELD, unset and now or hold) end
    end
    return
  end
  local bounds = {}
  for i, g in ipairs(groups) do
    join(g)
    bounds[i] = g.want > 0 and -1 or false
  end
  while true do
    local group, least, rival, rival_at
    for i = 1, #groups do
      local at = bounds[i]
      if at and (not least or at < least) then
        group, least, rival, rival_at = i, at, group, least
      elseif at and (not rival_at or at < rival_at) then
        rival, rival_at = i, at
      end
    end
    if not group then return end
    local g = groups[group]
    local start, a, b, c = next_call(g)
    if not start then
      refuse(group, a, b, c)
      bounds[group] = false
    elseif start ~= least and rival and (rival_at < start or (rival_at == start and rival < group)) then
      bounds[group] = start
    else
      grant(group, g, start, a, b, c)
      bounds[group] = g.granted < g.want and start
    end
  end
end

------------------------------------------------------------------------------------------- saving

local function renew_claims()
  for i, claim in ipairs(ask.claims) do
    local key = KEYS[first_claim + i]
    local v = call('HMGET', key, 'publication', 'holder')
    if v[1] and (v[1] ~= claim or v[2] ~= holder) then
      lost[#lost + 1] = i - 1
    else
      if not v[1] then call('HSET', key, 'publication', claim, 'holder', holder) end
      call('PEXPIRE', key, ask.claim_ms)
    end
  end
end

local function save_paced(l, key)
  if l.waits then return end
  local heard = int(l.left or -1) .. ' ' .. int(l.till or 0) .. ' ' .. (l.learned or '')
  local new = heard ~= (l.shown[7] or '-1 0 ')
  if not l.dirty and not new then return end
  local period, v = floor(now / l.period), l.shown
  local used, before, stored = 0, 0, tonumber(v[3])
  if stored == period then
    used, before = tonumber(v[4]), tonumber(v[5])
  elseif stored == period - 1 then
    before = tonumber(v[4])
  end
  call('HSET', key, 'next', int(l.next), 'id', server, 'period', int(period),
    'used', int(used + l.granted), 'before', int(before), 'by', l.by)
  if new then call('HSET', key, 'heard', heard) end
  local nearer = l.turn and int(l.nearer) .. ' ' .. int(l.turn) or ''
  if nearer ~= (v[8] or '') then call('HSET', key, 'nearer', nearer) end
  call('PEXPIRE', key, KEEP_MS)
end

local function save_leases(l, key)
  if l.anew then call('DEL', key) end
  if #l.dead > 0 then call('HDEL', key, unpack(l.dead)) end
  call('HSET', key, '#id', process, '#opens', int(l.opens))
  if l.learned and (l.anew or l.learned ~= l.was) then call('HSET', key, '#heard', l.learned) end
  if not l.stale then
    call('HSET', key, holder, int(l.mine) .. ' ' .. int(now + ask.lease) .. ' ' .. int(ask.seq))
  end
  call('PEXPIRE', key, KEEP_MS)
end

local function save_quota(l, key)
  local due = l.lost or (l.mark < l.calls and l.mark < l.count + l.near)
  -- A counter that nobody draws from wants none: after a loss its mark would count as used.
  if l.marked and due and (l.count > 0 or l.awaited) then
    marks[#marks + 1] = l.index
  end
  if l.learned and l.learned ~= l.was then call('HSET', key, 'heard', l.learned) end
  if not l.dirty then return end
  call('HSET', key, 'id', server, 'opened', int(l.opened), 'count', int(l.count), 'mark', int(l.mark),
    'lost', l.lost and int(l.lost) or '')
  call('PEXPIRE', key, floor((l.closes - now) / 1000) + KEEP_MS)
end

local savers = { paced = save_paced, leases = save_leases, quota = save_quota, other_window = function() end }

local function save_closures()
  if #over > 0 then call('HDEL', KEYS[1], unpack(over)) end
  for name, c in pairs(closed) do
    if c.dirty then
      call('HSET', KEYS[1], name, write_closure(c))
    end
  end
end

renew_claims()
give()
save_closures()
local scarce = 0
for i, l in ipairs(limits) do
  l.index = i - 1
  if l.kind == 'leases' and 2 * (l.others + l.mine) >= l.calls then scarce = 1 end
  savers[l.kind](l, KEYS[1 + i])
end
for i, g in ipairs(groups) do
  if g.granted > 0 then
    call('INCRBY', KEYS[first_run + i], g.granted)
    call('PEXPIRE', KEYS[first_run + i], KEEP_MS)
  end
end
return { now, grants, refusals, lost, marks, resets, changed, scarce }
