-- A closure, as `limit::Closed`: `<until us> <strikes> <probe us> <ramp us> <next us> <reason>`, and, where a ramp was
-- measured, `<start us> <mean us> <least us> <refused us>` of `limit::Slower`. Before the scripts that read one, behind
-- RAISED_AFTER and RAISED_AT_MOST.

local function read_closure(text)
  local till, strikes, probe, ramp, after, reason, slower =
    string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%S+)(.*)$')
  if not till then return nil end
  local start, mean, least, refused = string.match(slower, '^ (%d+) (%d+) (%d+) (%d+)$')
  return { till = tonumber(till), strikes = tonumber(strikes), probe = tonumber(probe), ramp = tonumber(ramp),
    next = tonumber(after), reason = reason, start = tonumber(start or 0), mean = tonumber(mean or 0),
    least = tonumber(least or 0), refused = tonumber(refused or 0) }
end

local function write_closure(c)
  local text = string.format('%.0f %.0f %.0f %.0f %.0f %s', c.till, c.strikes, c.probe, c.ramp, c.next, c.reason)
  if c.start == 0 and c.least == 0 then return text end
  return text .. string.format(' %.0f %.0f %.0f %.0f', c.start, c.mean, c.least, c.refused)
end

local function least_now(c, at)
  local raised = math.min(math.max(math.floor((at - c.ramp) / RAISED_AFTER), 0), RAISED_AT_MOST)
  return math.floor(c.least * 32 / (31 + 2 ^ raised))
end

local function is_over(c, at, ramp_over, forgotten)
  if c.ramp > 0 then return at >= c.ramp + (c.least > 0 and RAISED_AFTER * RAISED_AT_MOST or ramp_over) end
  return c.probe == 0 and at >= c.till + forgotten
end
