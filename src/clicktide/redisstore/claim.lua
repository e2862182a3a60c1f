-- Claims event ids for the records that carry them. Promises: of all records with one id exactly one place
-- (topic, partition, offset) ever holds the claim within the window, and asking again for that place says yes.
--
-- KEYS[1]  the shard's key prefix
-- ARGV[1]  msgpack: [now, window, flat list of (bucket, field, claim)]; times in seconds; now 0 asks this server, so
--          that workers whose clocks disagree still agree on the generation
-- answers  flat list of (position from 0, verdict) for those not to go on: 1 duplicate, 2 other content under this id
--
-- A claim is 8 characters of fingerprint, the place, and a last byte: '0' claimed, '1' applied.
local p = KEYS[1]
local a = cmsgpack.unpack(ARGV[1])
local now, window, items = a[1], a[2], a[3]
if now == 0 then now = tonumber(redis.call('TIME')[1]) end
local generation = math.floor(now / window)
-- A claim lives in the generation it was made in and one more: at least the window, at most twice that.
local ttl = (generation + 2) * window - now + 1
local current = p .. 'c:' .. generation .. ':'
local previous = p .. 'c:' .. (generation - 1) .. ':'
local has_previous = redis.call('EXISTS', p .. 'c:' .. (generation - 1)) == 1
redis.call('SET', p .. 'c:' .. generation, 1, 'EX', ttl)

local answer = {}
for i = 1, #items, 3 do
  local bucket, field, claim = items[i], items[i + 1], items[i + 2]
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
    answer[#answer + 1] = (i - 1) / 3
    answer[#answer + 1] = string.sub(old, 1, 8) == string.sub(claim, 1, 8) and 1 or 2
  end
end
return answer
