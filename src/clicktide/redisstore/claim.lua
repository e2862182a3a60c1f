-- Claims event ids for the records that carry them. Promises: of all records with one id exactly one place
-- (topic, partition, offset) ever holds the claim within the window, and asking again for that place says yes.
--
-- KEYS[1]  the shard's key prefix
-- ARGV[1]  now (s); 0 asks this server, so that workers whose clocks disagree still agree on the generation
-- ARGV[2]  the window (s)
-- ARGV[3]  hashes a generation
-- ARGV[4]  for each record 12 bytes of field and 23 of claim, with nothing between
-- answers  flat list of (position from 0, verdict) for those not to go on: 1 duplicate, 2 other content under this id
--
-- A claim is 8 characters of fingerprint, the place, and a last byte: '0' claimed, '1' applied.
local p = KEYS[1]
local now, window, buckets, items = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if now == 0 then now = tonumber(redis.call('TIME')[1]) end
local generation = math.floor(now / window)
-- A claim lives in the generation it was made in and one more: at least the window, at most twice that.
local ttl = (generation + 2) * window - now + 1
local current = p .. 'c:' .. generation .. ':'
local previous = p .. 'c:' .. (generation - 1) .. ':'
local has_previous = redis.call('EXISTS', p .. 'c:' .. (generation - 1)) == 1
redis.call('SET', p .. 'c:' .. generation, 1, 'EX', ttl)

local answer = {}
for i = 1, #items, 35 do
  local field, claim = string.sub(items, i, i + 11), string.sub(items, i + 12, i + 34)
  local high, low = string.byte(field, 1, 2)
  local bucket = (high * 256 + low) % buckets
  local old = has_previous and redis.call('HGET', previous .. bucket, field)
  if not old then
    local key = current .. bucket
    if redis.call('HSETNX', key, field, claim) == 1 then
      redis.call('EXPIRE', key, ttl, 'NX')
    else
      old = redis.call('HGET', key, field)
    end
  end
  if old and string.sub(old, 1, -2) ~= string.sub(claim, 1, -2) then
    answer[#answer + 1] = (i - 1) / 35
    answer[#answer + 1] = string.sub(old, 1, 8) == string.sub(claim, 1, 8) and 1 or 2
  end
end
return answer
