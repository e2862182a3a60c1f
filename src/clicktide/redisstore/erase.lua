-- Says which users of a shard are erased, and deletes what is kept of each of them, in one atomic step.
-- KEYS[1]  the shard's key prefix
-- ARGV     'erase' and all erased users that are known of; or 'lift' and one user who is erased no longer
-- answers  how many events went out of their timelines
local key, gone = KEYS[1] .. 'x', 0
if ARGV[1] == 'lift' then
  redis.call('SREM', key, ARGV[2])
  return 0
end
redis.call('SADD', key, '')
for i = 2, #ARGV do
  redis.call('SADD', key, ARGV[i])
  local line = KEYS[1] .. 't:' .. ARGV[i]
  gone = gone + redis.call('ZCARD', line)
  redis.call('DEL', line)
end
return gone
