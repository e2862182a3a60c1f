-- Applies all that a slice's events of one shard do in Redis and turns their claims to applied, in one atomic step.
-- Promises: each event's effects happen once, however often and in whatever slices it comes back.
--
-- The sums come ready made, so they hold for just this set of events: when a claim says that one of them is applied
-- already (or belongs to another record), nothing is changed and the answer names those to leave out; the
-- caller sums anew and asks again.
--
-- KEYS[1]  the shard's key prefix
-- ARGV[1..4]  now, window, hashes a generation and claims, as in claim.lua; the claims end in '0'
-- ARGV[5]  msgpack: [counts, timelines, length, timeline ttl, visitors]; times in seconds
--   counts     list of [key, ttl or 0, flat list of (field, increment as text)]
--   timelines  list of [key, flat list of (score, member)], cut to the `length` newest
--   visitors   list of [key, ttl or 0, list of users]
-- answers  flat list of positions (from 0) to leave out; empty when all is applied
local p = KEYS[1]
local now, window, buckets, claims = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if now == 0 then now = tonumber(redis.call('TIME')[1]) end
local generation = math.floor(now / window)
local ttl = (generation + 2) * window - now + 1
local current = p .. 'c:' .. generation .. ':'
local previous = p .. 'c:' .. (generation - 1) .. ':'
local has_previous = redis.call('EXISTS', p .. 'c:' .. (generation - 1)) == 1

local leave, homes = {}, {}
for i = 1, #claims, 35 do
  local field, claim = string.sub(claims, i, i + 11), string.sub(claims, i + 12, i + 34)
  local high, low = string.byte(field, 1, 2)
  local bucket = (high * 256 + low) % buckets
  local home = current .. bucket
  local old = redis.call('HGET', home, field)
  if not old and has_previous then
    old = redis.call('HGET', previous .. bucket, field)
    if old then home = previous .. bucket end
  end
  -- A claim that is gone went with its effects (Redis lost its last second): this event makes both anew.
  if old and old ~= claim then leave[#leave + 1] = (i - 1) / 35 end
  homes[i] = home
end
if #leave > 0 then return leave end

redis.call('SET', p .. 'c:' .. generation, 1, 'EX', ttl)
for i = 1, #claims, 35 do
  if redis.call('HSET', homes[i], string.sub(claims, i, i + 11), string.sub(claims, i + 12, i + 33) .. '1') == 1 then
    redis.call('EXPIRE', homes[i], ttl, 'NX')
  end
end
local a = cmsgpack.unpack(ARGV[5])
for _, count in ipairs(a[1]) do
  local key, increments = p .. count[1], count[3]
  for i = 1, #increments, 2 do redis.call('HINCRBY', key, increments[i], increments[i + 1]) end
  if count[2] > 0 then redis.call('EXPIRE', key, count[2]) end
end
local last = -a[3] - 1
for _, timeline in ipairs(a[2]) do
  local key, scored = p .. timeline[1], timeline[2]
  for from = 1, #scored, 1000 do redis.call('ZADD', key, unpack(scored, from, math.min(from + 999, #scored))) end
  redis.call('ZREMRANGEBYRANK', key, 0, last)
  redis.call('EXPIRE', key, a[4])
end
for _, seen in ipairs(a[5]) do
  local key, users = p .. seen[1], seen[3]
  for from = 1, #users, 1000 do redis.call('PFADD', key, unpack(users, from, math.min(from + 999, #users))) end
  if seen[2] > 0 then redis.call('EXPIRE', key, seen[2]) end
end
return leave
