-- Claims the ids of a slice's events of one shard and applies all that they do in Redis, in one atomic step.
-- Promises: a claim is there exactly when its event's effects are; each event has its effects once, however often and
-- in whatever slices it comes back; of all records with one id exactly one is ever applied within the window.
--
-- The sums come ready made, so they hold for just this set of events: when one of them is not fresh, nothing is
-- changed and the answer names those to leave out; the caller sums anew and asks again.
--
-- KEYS[1]  the shard's key prefix
-- ARGV[1]  now (s); 0 asks this server, so that workers whose clocks disagree still agree on the generation
-- ARGV[2]  the window (s)
-- ARGV[3]  hashes of a generation that begins now, a power of two: one is read and written in a few calls, many take half its memory
-- ARGV[4]  for each record 12 bytes of field and 22 of claim (8 of fingerprint, 14 of place), with nothing between
-- ARGV[5]  msgpack: [counts, timelines, length, timeline ttl, visitors]; times in seconds
--   counts     list of [key, ttl or 0, flat list of (field, increment as text)]
--   timelines  list of [key, flat list of (score as text, member)], cut to the `length` newest
--   visitors   list of [hour's key, its ttl, day's key, its ttl, key of all time, list of users]
-- ARGV[6]  1 where the shard's erased users must be known here; 0 where nobody can tell
-- answers  {'load'}: they are not (a server that lost all); {'erased', user...}: events of these are among them; both times
--          nothing is changed; else a
--          flat list of (position from 0, verdict) of those that are not fresh: 0 this very record was applied before,
--          1 another record with the same content was, 2 one with other content; empty when all is applied now
local p = KEYS[1]
local now, window, claims = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
local call, whole, sub, byte = redis.call, string.format, string.sub, string.byte
if now == 0 then now = tonumber(call('TIME')[1]) end
local a = cmsgpack.unpack(ARGV[5])

-- The set of erased users holds the empty name, which is nobody's, once it has been filled.
local erased = call('SCARD', p .. 'x')
if erased == 0 and ARGV[6] == '1' then return { 'load' } end
if erased > 1 then
  local users, found = {}, { 'erased' }
  for i, timeline in ipairs(a[2]) do users[i] = string.sub(timeline[1], 3) end
  for from = 1, #users, 1000 do
    local is = call('SMISMEMBER', p .. 'x', unpack(users, from, math.min(from + 999, #users)))
    for i = 1, #is do if is[i] == 1 then found[#found + 1] = users[from + i - 1] end end
  end
  if #found > 1 then return found end
end

local generation = math.floor(now / window)
-- A server that took over may have a clock that is behind: it goes on in the generation that has begun.
if call('EXISTS', p .. 'c:' .. (generation + 1)) == 1 then generation = generation + 1 end
-- A claim lives in the generation it was made in and one more: at least the window, at most twice that.
local ttl = (generation + 2) * window - now + 1
-- With %d for the bucket: `..` would write the number as a float, at five times the cost. The prefix may hold a % of its own.
local claims_of = string.gsub(p, '%%', '%%%%') .. 'c:'
local current = claims_of .. generation .. ':%d'
local previous = claims_of .. (generation - 1) .. ':%d'
-- A generation's marker has one character a hash: '1' where its expiry is set, which saves asking for it at every claim. So its
-- length says how many hashes the generation began with, whatever the setting is now. (Earlier releases wrote it
-- only as far as the last hash in use: the next power of two is right for them as well.)
local marker = p .. 'c:' .. generation
local expiring = call('GET', marker)
local function hashes(length)
  local count = 1
  while count < length do count = 2 * count end
  return count
end
local among = expiring and hashes(#expiring) or tonumber(ARGV[3])
local length_before = call('STRLEN', p .. 'c:' .. (generation - 1))

local count, fields, claimed = #claims / 34, {}, {}
for n = 1, count do
  local i = 34 * n - 33
  fields[n], claimed[n] = sub(claims, i, i + 11), sub(claims, i + 12, i + 33)
end
local function bucket_of(field, among)
  local high, low = byte(field, 1, 2)
  return (high * 256 + low) % among
end
-- For each field the claim that a generation has of it, or false.
local function found_in(homes, among)
  local found = {}
  if among > 1 then
    for n, field in ipairs(fields) do
      found[n] = call('HGET', whole(homes, bucket_of(field, among)), field)
    end
    return found
  end
  for from = 1, count, 1000 do
    local some = call('HMGET', whole(homes, 0), unpack(fields, from, math.min(from + 999, count)))
    for i = 1, #some do found[from + i - 1] = some[i] end
  end
  return found
end

local answer, fresh = {}, {}
local function not_fresh(n, old)
  local claim = claimed[n]
  answer[#answer + 1] = n - 1
  answer[#answer + 1] = old == claim and 0 or sub(old, 1, 8) == sub(claim, 1, 8) and 1 or 2
end
local older = length_before > 0 and found_in(previous, hashes(length_before)) or {}
if among == 1 then
  -- Read first, and written when all are fresh: two calls for a thousand claims, and nothing to undo.
  local known, home, here, new = found_in(current, 1), whole(current, 0), {}, {}
  for n, field in ipairs(fields) do
    local old = older[n] or known[n] or here[field]
    if old then
      not_fresh(n, old)
    else
      here[field], new[2 * n - 1], new[2 * n] = claimed[n], field, claimed[n]
    end
  end
  if #answer > 0 then return answer end
  for from = 1, 2 * count, 2000 do call('HSET', home, unpack(new, from, math.min(from + 1999, 2 * count))) end
  if count > 0 and not expiring then fresh[0] = home end
else
  local homes, made = {}, {}
  for n, field in ipairs(fields) do
    local old = older[n]
    if not old then
      local bucket = bucket_of(field, among)
      local home = whole(current, bucket)
      if call('HSETNX', home, field, claimed[n]) == 1 then
        homes[#homes + 1], made[#made + 1] = home, field
        if not expiring or byte(expiring, bucket + 1) ~= 49 then fresh[bucket] = home end
      else
        old = call('HGET', home, field)
      end
    end
    if old then not_fresh(n, old) end
  end
  if #answer > 0 then
    for i, home in ipairs(homes) do call('HDEL', home, made[i]) end
    return answer
  end
end

if not expiring then call('SETRANGE', marker, among - 1, '0') end
for bucket, home in pairs(fresh) do
  call('EXPIRE', home, ttl)
  call('SETRANGE', marker, bucket, '1')
end
if not expiring then call('EXPIRE', marker, ttl) end
-- A key is kept for at least its ttl after the last change, and a sixteenth longer: asking for what is left costs a
-- third of setting it anew, and is not written to the append-only file.
local function keep(key, ttl_s)
  if ttl_s > 0 and call('TTL', key) < ttl_s then call('EXPIRE', key, ttl_s + math.floor(ttl_s / 16) + 1) end
end

-- Adds whole numbers to fields of a hash. One HMGET and one HSET take half of what an HINCRBY a field does; sums that
-- a double does not hold exactly (money) are left to HINCRBY.
local EXACT = 2 ^ 53
local function add(key, increments)
  local names = {}
  for i = 1, #increments, 2 do names[#names + 1] = increments[i] end
  local old, set = call('HMGET', key, unpack(names)), {}
  for i = 1, #names do
    local sum = tonumber(old[i] or 0) + tonumber(increments[2 * i])
    if sum > -EXACT and sum < EXACT then
      set[#set + 1] = names[i]
      set[#set + 1] = whole('%d', sum)
    else
      call('HINCRBY', key, names[i], increments[2 * i])
    end
  end
  if #set > 0 then call('HSET', key, unpack(set)) end
end

for _, count in ipairs(a[1]) do
  local key, increments = p .. count[1], count[3]
  -- What Lua's stack takes at once.
  if #increments <= 2000 then add(key, increments)
  else for i = 1, #increments, 2 do call('HINCRBY', key, increments[i], increments[i + 1]) end end
  keep(key, count[2])
end
local last = -a[3] - 1
for _, timeline in ipairs(a[2]) do
  local key, scored = p .. timeline[1], timeline[2]
  for from = 1, #scored, 1000 do call('ZADD', key, unpack(scored, from, math.min(from + 999, #scored))) end
  call('ZREMRANGEBYRANK', key, 0, last)
  keep(key, a[4])
end
for _, seen in ipairs(a[5]) do
  local hour, day, all, users = p .. seen[1], p .. seen[3], p .. seen[5], seen[6]
  for from = 1, #users, 1000 do
    local to = math.min(from + 999, #users)
    -- Whom the hour has counted already the day and all time have, too: they got all that the hour got.
    if call('PFADD', hour, unpack(users, from, to)) == 1 then
      call('PFADD', day, unpack(users, from, to))
      call('PFADD', all, unpack(users, from, to))
      keep(day, seen[4])
    end
  end
  keep(hour, seen[2])
end
return answer
