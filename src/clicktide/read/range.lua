-- Reads some fields of consecutive buckets of one shard; changes nothing.
-- KEYS[1]  the buckets' key without the start: tide:<namespace>:{s<shard>}:b:<g>:
-- ARGV     step (s), first start (s), number of buckets, fields...
-- answers  flat list: start, then one value a field, for each bucket that has any of them
local fields = {}
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
local step, first, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local out = {}
for i = 0, count - 1 do
  local start = string.format('%.0f', first + i * step)
  local values = redis.call('HMGET', KEYS[1] .. start, unpack(fields))
  local any = false
  for j = 1, #values do if values[j] then any = true break end end
  if any then
    out[#out + 1] = start
    for j = 1, #values do out[#out + 1] = values[j] or '0' end
  end
end
return out
