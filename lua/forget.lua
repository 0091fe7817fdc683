--[[ forget: a node that left, or that is lost and whose tags are swept, is listed no more. One that
ticked again in between stays.
  KEYS[1]  zset    nodes             member incarnation, score expiry ms; TTL 7 days
  KEYS[2]  hash    descriptions      incarnation -> its description; TTL 7 days
  KEYS[3]  set     tags              the tags that this incarnation used; TTL 7 days
  ARGV[1]  bytes   head              deadline ms (6), whether it says so itself 0..1 (1)
  ARGV[2]  bytes   incarnation       16 hex digits
  Returns  {0 forgotten, now}, {2 it lives, now} or {3 late, now}
  Cost     O(log nodes + tags)
]]
--- @include "status"
--- @include "clock"
local nodes, descriptions, tags = KEYS[1], KEYS[2], KEYS[3]
local deadline, itself = struct.unpack('<I6B', ARGV[1])
local now = now_ms()
if now > deadline then return {LATE, now} end
local expiry = call('ZSCORE', nodes, ARGV[2])
if itself == 0 and expiry and tonumber(expiry) > now then return {REFUSED, now} end
call('ZREM', nodes, ARGV[2])
call('HDEL', descriptions, ARGV[2])
call('DEL', tags)
return {OK, now}
