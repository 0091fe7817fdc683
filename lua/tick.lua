--[[ tick: a node says that it is alive, and which tags it uses; it learns the time, how many nodes
live, which are lost, and what shape the keys have. A lost node stays listed until its tags are swept
and `forget` has taken them off.
  KEYS[1]  zset    nodes             member incarnation, score expiry ms; TTL 7 days
  KEYS[2]  hash    descriptions      incarnation -> its description; TTL 7 days
  KEYS[3]  set     tags              the tags this incarnation uses; TTL 7 days
  KEYS[4]  string  ticks             ticks of all nodes so far: never goes back; TTL 7 days
  KEYS[5]  hash    schema            version, readers; no TTL (migrations/README.md)
  ARGV[1]  bytes   head              deadline ms (6), whether the rank is asked for 0..1 (1)
  ARGV[2]  bytes   incarnation       16 hex digits
  ARGV[3]  integer node_ttl_ms       without a tick for so long, a node is lost
  ARGV[4]  bytes   description       JSON; empty: as it was
  ARGV[5+] bytes   tag               after a + used from now on, after a - used no more
  Returns  {0, now, live nodes, this one's rank among them from 0 (-1: not asked for), whether it was
           not listed before 0..1, ticks, schema's version and readers (-1: none)}, then for at most 16 lost nodes the incarnation and its expiry in ms;
           or {3 late, now}
  Cost     O(log nodes + tags), with the rank O(nodes); the reply does not grow with their number
]]
--- @include "status"
--- @include "clock"
local nodes, descriptions, tags, ticks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, incarnation = now_ms(), ARGV[2]
local deadline, ranked = struct.unpack('<I6B', ARGV[1])
if now > deadline then return {LATE, now} end
local schema = call('HMGET', KEYS[5], 'version', 'readers')
local fresh = call('ZADD', nodes, string.format('%.0f', now + ARGV[3]), incarnation)
if ARGV[4] ~= '' then call('HSET', descriptions, incarnation, ARGV[4]) end
for i = 5, #ARGV do
  local command = string.sub(ARGV[i], 1, 1) == '+' and 'SADD' or 'SREM'
  call(command, tags, string.sub(ARGV[i], 2))
end
local text, rank = string.format('%.0f', now), -1
if ranked == 1 then
  rank = 0
  for _, node in ipairs(call('ZRANGEBYSCORE', nodes, '(' .. text, '+inf')) do
    if node < incarnation then rank = rank + 1 end
  end
end
local reply = {
  OK, now, call('ZCOUNT', nodes, '(' .. text, '+inf'), rank, fresh, call('INCR', ticks),
  tonumber(schema[1] or -1), tonumber(schema[2] or -1),
}
for i = 1, 4 do call('PEXPIRE', KEYS[i], '604800000') end
local lost = call('ZRANGEBYSCORE', nodes, '-inf', text, 'WITHSCORES', 'LIMIT', '0', '16')
for i = 1, #lost, 2 do
  reply[#reply + 1] = lost[i]
  reply[#reply + 1] = tonumber(lost[i + 1])
end
return reply
