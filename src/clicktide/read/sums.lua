-- Sums the fields that start with a prefix over consecutive buckets of one shard; changes nothing.
-- KEYS[1]  the buckets' key without the start
-- ARGV     step (s), first start (s), number of buckets, prefix
-- answers  flat list: field without the prefix, sum
-- Sums are Lua numbers, exact below 2^53.
local step, first, count, prefix = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local sums = {}
for i = 0, count - 1 do
  local all = redis.call('HGETALL', KEYS[1] .. string.format('%.0f', first + i * step))
  for j = 1, #all, 2 do
    if string.sub(all[j], 1, #prefix) == prefix then
      local name = string.sub(all[j], #prefix + 1)
      sums[name] = (sums[name] or 0) + tonumber(all[j + 1])
    end
  end
end
local out = {}
for name, sum in pairs(sums) do
  out[#out + 1] = name
  out[#out + 1] = string.format('%.0f', sum)
end
return out
