--[[ settle: a node's batch of truths about attempts, and of usage. Applied once by its number, whole.
A member is corrected by what it used more or less than it had reserved and is a member no more; one
that was swept as lost is corrected by what was recorded then; one that was admitted elsewhere is
charged now without a check; one whose node is lost stays charged as it is, if its lease has ended.
  KEYS[1]  string  batch             number of the last batch applied; TTL 7 days
  KEYS[2]  zset    open              member attempt id, score lease end ms; TTL 24 h
  KEYS[3]  hash    held              attempt id -> what it reserved (include/held); TTL 24 h
  KEYS[4]  zset    seen              member attempt id, score admit deadline ms; TTL 1 h
  KEYS[5]  hash    lost              today's: attempt id -> hour (4 bytes) and held; TTL 48 h
  KEYS[6]  hash    lost              yesterday's
  KEYS[7]  hash    usage             the present hour's: row -> ten counts (8 bytes each); TTL ARGV
  KEYS[8+] hash    usage             one of each other hour
  KEYS[..] hash    scope             one of each scope (include/scope); TTL ARGV
  KEYS[..] zset    permits           one of each: member holder id, score lease end ms; TTL 24 h
  ARGV[1]  bytes   head              deadline ms (6), number (6), hours, scopes, permits, settles, rows (2 each)
  ARGV[2]  bytes   hours             4 each: the hour of each usage key
  ARGV[3]  bytes   settles           id (17), origin 0 member 1 elsewhere 2 lapsed (1), charges (1), 36 for each charge
  ARGV[4]  bytes   rows              which usage key from 0 (2), length (2), row, ten counts (8 each)
  ARGV[5]  integer usage_ttl_ms      of each usage key
  ARGV[6+] integer scope_ttl_ms      of each scope
  Returns  {0 applied, now}, {1 duplicate, now}, {3 late, now} or {5 ask, now, hour...}: nothing was
           applied, the same batch is wanted with the usage keys of these hours too
  Cost     O(settles * charges + rows); each scope is read and written once
]]
--- @include "status"
--- @include "clock"
--- @include "charge"
--- @include "scope"
--- @include "held"
--- @include "window"
--- @include "states"
--- @include "correct"
--- @include "usage"
local batch, open, held_key, seen, lost_today = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local deadline, number, hours, scopes, permits, settles, rows = struct.unpack('<I6I6I2I2I2I2I2', ARGV[1])
local scopes_at, permits_at = 6 + hours, 6 + hours + scopes
local now = now_ms()
if now > deadline then return {LATE, now} end
local last = call('GET', batch)
if last and tonumber(last) >= number then return {DUPLICATE, now} end

-- Read: what each attempt had reserved, and in which hours lost ones were recorded.
local usage_of, ask, todo, at, known = {}, {OK, now}, {}, 1, {}
for i = 1, hours do usage_of[struct.unpack('<I4', ARGV[2], i * 4 - 3)] = KEYS[6 + i] end
for i = 1, settles do
  local id, origin, charges, first_charge = struct.unpack('<c17BB', ARGV[3], at)
  at = first_charge + charges * RECORD_BYTES
  local one = {id = id, origin = origin, charges = charges, at = first_charge}
  one.held = origin ~= 1 and not known[id] and call('HGET', held_key, id)
  for day = 5, 6 do
    local entry = origin == 0 and not one.held and not known[id] and call('HGET', KEYS[day], id)
    if entry then
      one.hour, one.held, one.lost = struct.unpack('<I4', entry), string.sub(entry, 5), KEYS[day]
      if not usage_of[one.hour] then ask[1], ask[#ask + 1] = ASK, one.hour end
    end
  end
  if origin == 2 and one.held and tonumber(call('ZSCORE', open, id) or 0) > now then one.held = nil end
  todo[i], known[id] = one, known[id] or one.held
end
if ask[1] == ASK then return ask end

call('SET', batch, string.format('%.0f', number), 'PX', '604800000')
local states = {}
local function scope_of(i)
  states[i] = states[i] or open_scope(KEYS[scopes_at + i])
  return states[i]
end

for _, one in ipairs(todo) do
  local n = one.held and string.byte(one.held, 2) or 0
  for i = 1, one.charges do
    local limit_id, scope, kind, flags, limit, first, second, amount =
      struct.unpack(RECORD, ARGV[3], one.at + (i - 1) * RECORD_BYTES)
    if kind == PERMITS then
      local key, holder = KEYS[permits_at + first + 1], flags % 2 == 1 and one.id or string.sub(one.id, 1, 16)
      local gone = amount == 0
      if one.origin == 2 then gone = tonumber(call('ZSCORE', key, holder) or now + 1) <= now end
      if gone then call('ZREM', key, holder) end
    elseif one.origin == 1 and amount > 0 then
      charge_now(scope_of(scope + 1), limit_id, kind, limit, first, second, amount, now)
    elseif one.origin == 0 and i <= n then
      local difference = amount - held_amount(one.held, n, i)
      if difference ~= 0 then
        local slot = held_slot(one.held, i)
        correct(scope_of(scope + 1), limit_id, kind, slot, difference, limit, first, second, now)
      end
    end
  end
  local row, estimate
  if one.held then row, estimate = held_bill(one.held, n) end
  if one.lost then
    call('HDEL', one.lost, one.id)
    if row then add_usage(usage_of[one.hour], row, of_lost_node(estimate), -1) end
  elseif one.held then
    call('ZREM', open, one.id)
    call('HDEL', held_key, one.id)
    local admitted_until = struct.unpack('<I6', one.held, 3)
    if one.origin == 2 then
      local hour = struct.unpack('<I4', ARGV[2])
      call('HSET', lost_today, one.id, struct.pack('<I4', hour) .. one.held)
      if row then add_usage(KEYS[7], row, of_lost_node(estimate), 1) end
    elseif admitted_until >= now then
      call('ZADD', seen, string.format('%.0f', admitted_until), one.id)
    end
  end
end

at = 1
for _ = 1, rows do
  local hour, row, next_at = struct.unpack('<I2I2c0', ARGV[4], at)
  local counts = {struct.unpack('<dddddddddd', ARGV[4], next_at)}
  at = counts[11]
  add_usage(KEYS[7 + hour], row, counts, 1)
end
for i, scope in pairs(states) do save_scope(scope, tonumber(ARGV[5 + i]), now) end
call('ZREMRANGEBYSCORE', seen, '-inf', string.format('(%.0f', now))
for i = 2, 6 do call('PEXPIRE', KEYS[i], i < 4 and '86400000' or i == 4 and '3600000' or '172800000') end
for i = 7, 6 + hours do call('PEXPIRE', KEYS[i], ARGV[5]) end
for i = permits_at + 1, permits_at + permits do call('PEXPIRE', KEYS[i], '86400000') end
return {OK, now}
