--[[ renew: a node's leases go on. A permit that is not there is registered again, even above its
limit: the request that holds it is running. A member that was settled or swept stays gone.
  KEYS[1]  zset    open              member attempt id, score lease end ms; TTL 24 h
  KEYS[2]  hash    held              attempt id -> what it reserved; TTL 24 h
  KEYS[3+] zset    permits           one of each: member holder id, score lease end ms; TTL 24 h
  ARGV[1]  bytes   head              deadline ms (6), ids (4)
  ARGV[2]  integer lease_end_ms      the new end of all of them
  ARGV[3]  bytes   ids               which permits' key from 1, 0 for a member (2), length 16..17 (1), id
  Returns  {0 renewed, now} or {3 late, now}
  Cost     O(ids * log n)
]]
--- @include "status"
--- @include "clock"
local open, held = KEYS[1], KEYS[2]
local deadline, ids = struct.unpack('<I6I4', ARGV[1])
local now, lease_end, at = now_ms(), ARGV[2], 1
if now > deadline then return {LATE, now} end
for _ = 1, ids do
  local permits, id, next_at = struct.unpack('<I2Bc0', ARGV[3], at)
  at = next_at
  if permits == 0 then
    call('ZADD', open, 'XX', lease_end, id)
  else
    call('ZADD', KEYS[2 + permits], lease_end, id)
  end
end
call('PEXPIRE', held, '86400000')
call('PEXPIRE', open, '86400000')
for i = 3, #KEYS do call('PEXPIRE', KEYS[i], '86400000') end
return {OK, now}
