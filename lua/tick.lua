--[[ tick: a node says that it is alive, and which tags it has begun to use; it learns the time, how
many nodes live, and which are lost. A lost node stays listed until its tags are swept and `forget`
is called for it.
  KEYS[1]  zset    nodes             member incarnation, score expiry ms; TTL 7 days
  KEYS[2]  hash    descriptions      incarnation -> its description; TTL 7 days
  KEYS[3]  set     tags              the tags this incarnation uses; TTL 7 days
  ARGV[1]  bytes   head              deadline ms (6)
  ARGV[2]  bytes   incarnation       16 hex digits
  ARGV[3]  integer node_ttl_ms       without a tick for so long, a node is lost
  ARGV[4]  bytes   description       JSON; empty: as it was
  ARGV[5+] bytes   tag               used from now on
  Returns  {0, now, live nodes, lost incarnation...}, at most 16 lost ones at a time; or {3 late, now}
  Cost     O(log nodes + tags); the reply does not grow with the number of nodes
]]
--- @include "status"
--- @include "clock"
local nodes, descriptions, tags = KEYS[1], KEYS[2], KEYS[3]
local now, incarnation = now_ms(), ARGV[2]
if now > struct.unpack('<I6', ARGV[1]) then return {LATE, now} end
call('ZADD', nodes, string.format('%.0f', now + ARGV[3]), incarnation)
if ARGV[4] ~= '' then call('HSET', descriptions, incarnation, ARGV[4]) end
for i = 5, #ARGV do call('SADD', tags, ARGV[i]) end
for _, key in ipairs(KEYS) do call('PEXPIRE', key, '604800000') end
local text = string.format('%.0f', now)
local reply = {OK, now, call('ZCOUNT', nodes, '(' .. text, '+inf')}
for _, lost in ipairs(call('ZRANGEBYSCORE', nodes, '-inf', text, 'LIMIT', '0', '16')) do
  reply[#reply + 1] = lost
end
return reply
