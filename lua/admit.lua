--[[ admit: take what an attempt needs of every limit of a tag. Atomic: all charges are taken, or
none, and nothing is written. Once by id, also when it is sent again, and never after its deadline.
A window's under-admission is at worst 1 in slots + 1.
  KEYS[1]  zset    open              member attempt id, score lease end ms; TTL 24 h
  KEYS[2]  hash    held              attempt id -> what it reserved (include/held); TTL 24 h
  KEYS[3]  zset    seen              member attempt id, score admit deadline ms; TTL 1 h
  KEYS[4+] hash    scope             one of each scope (include/scope); TTL ARGV
  KEYS[..] zset    permits           one of each charge of permits: holder id, lease end ms; TTL 24 h
  ARGV[1]  bytes   head              deadline ms (6), member 0..1 (1), scopes (2), charges (2)
  ARGV[2]  bytes   id                17: the attempt; its first 16 are the request
  ARGV[3]  integer lease_end_ms      until when the member and its permits live
  ARGV[4]  bytes   charges           36 each (include/charge), amounts below 2^48
  ARGV[5]  bytes   note              for the member, kept as it is (include/held)
  ARGV[6+] integer scope_ttl_ms      of each scope
  Returns  {0 admitted, now, left of each charge}, {1 duplicate, now}, {2 refused, now, charge from 0,
           wait ms or -1, left}, {3 late, now} or {4 stale period, now}
  Cost     O(charges + slots); a window's ring is rewritten once per slot
]]
--- @include "status"
--- @include "clock"
--- @include "charge"
--- @include "scope"
--- @include "window"
--- @include "states"
--- @include "take"
local open, held, seen, id = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
local deadline, member, scopes, charges = struct.unpack('<I6BI2I2', ARGV[1])
local now = now_ms()
if now > deadline then return {LATE, now} end

-- Asked where nothing is admitted: then it may have been admitted before.
local function unless_known(reply)
  if call('ZSCORE', open, id) or call('ZSCORE', seen, id) then return {DUPLICATE, now} end
  return reply
end

local states, permits, slots, reply, packed = {}, {}, {}, {OK, now}, ARGV[4]
for i = 1, charges do
  local limit_id, scope, kind, flags, limit, first, second, amount =
    struct.unpack(RECORD, packed, (i - 1) * RECORD_BYTES + 1)
  local slot, left, wait
  if kind == PERMITS then
    local key = KEYS[4 + scopes + first]
    local alive = call('ZCARD', key)
    permits[#permits + 1] = {key, flags % 2 == 1 and id or string.sub(id, 1, 16), alive, limit}
    if alive + amount > limit then alive = call('ZCOUNT', key, string.format('(%.0f', now), '+inf') end
    slot, left, wait = 0, limit - alive - amount, -1
    if left < 0 or limit == 0 then slot, left = nil, math.max(0, limit - alive) end
  else
    if kind == BUDGET and (now < first or now >= second) then return unless_known({STALE, now}) end
    scope = scope + 1
    local opened = states[scope]
    if not opened then
      opened = open_scope(KEYS[3 + scope])
      states[scope] = opened
    end
    slot, left, wait = take(opened, limit_id, kind, limit, first, second, amount, now)
  end
  if not slot then return unless_known({REFUSED, now, i - 1, wait, left}) end
  slots[i], reply[i + 2] = slot, left
end

if member == 1 then
  if call('ZSCORE', seen, id) or call('ZADD', open, 'NX', ARGV[3], id) == 0 then return {DUPLICATE, now} end
  local top = struct.pack('<BBI6' .. string.rep('I6', charges), 0, charges, deadline, unpack(slots))
  call('HSET', held, id, top .. packed .. ARGV[5])
  -- From here on those who renew and settle move the TTLs.
  if call('HLEN', held) == 1 then
    call('PEXPIRE', open, '86400000')
    call('PEXPIRE', held, '86400000')
  end
else
  if call('ZADD', seen, 'NX', string.format('%.0f', deadline), id) == 0 then return {DUPLICATE, now} end
  call('ZREMRANGEBYSCORE', seen, '-inf', string.format('(%.0f', now))
  call('PEXPIRE', seen, '3600000')
end
for _, permit in ipairs(permits) do
  local key, holder, alive, limit = unpack(permit)
  if alive >= limit then call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now)) end
  call('ZADD', key, ARGV[3], holder)
  if alive == 0 then call('PEXPIRE', key, '86400000') end
end
for i, scope in pairs(states) do save_scope(scope, tonumber(ARGV[5 + i]), now) end
return reply
