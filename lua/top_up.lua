--[[ top_up: reserve more for a member that outruns its reservation. Atomic: all or nothing; each
step once. For a later correction all of it counts as charged where the first amounts were, although
the added ones are counted now: once that slot has left its window, nothing is given back. What would
be given back then has left too, and a newer slot holds what others took.
  KEYS[1]  hash    held              attempt id -> what it reserved (include/held); TTL 24 h
  KEYS[2+] hash    scope             one of each scope (include/scope); TTL ARGV
  ARGV[1]  bytes   head              deadline ms (6), step 1..255 (1), scopes (2), charges (2)
  ARGV[2]  bytes   id                17: the attempt
  ARGV[3]  bytes   charges           36 each (include/charge), those of the admit, amounts to add
  ARGV[4+] integer scope_ttl_ms      of each scope
  Returns  {0 topped up, now, left of each charge}, {1 duplicate, now}, {2 refused, now, charge from 0,
           wait ms or -1, left}, {3 late, now} or {4 stale period, now}
  Cost     O(charges + slots)
]]
--- @include "status"
--- @include "clock"
--- @include "charge"
--- @include "scope"
--- @include "held"
--- @include "window"
--- @include "states"
--- @include "take"
local deadline, step, scopes, charges = struct.unpack('<I6BI2I2', ARGV[1])
local held_key, id, packed, now = KEYS[1], ARGV[2], ARGV[3], now_ms()
if now > deadline then return {LATE, now} end
local held = call('HGET', held_key, id)
if not held then return {REFUSED, now, 0, -1, 0} end
local steps, n, admitted_until = struct.unpack('<BBI6', held)
if step <= steps then return {DUPLICATE, now} end
if step > steps + 1 or charges ~= n then return {REFUSED, now, 0, -1, 0} end

local states, reply, slots, amounts = {}, {OK, now}, {}, {}
for i = 1, charges do
  local limit_id, scope, kind, flags, limit, first, second, amount =
    struct.unpack(RECORD, packed, (i - 1) * RECORD_BYTES + 1)
  slots[i], amounts[i], reply[i + 2] = held_slot(held, i), held_amount(held, n, i), 0
  if amount > 0 and kind ~= PERMITS then
    if kind == BUDGET and (now < first or now >= second) then return {STALE, now} end
    scope = scope + 1
    states[scope] = states[scope] or open_scope(KEYS[1 + scope])
    local slot, left, wait = take(states[scope], limit_id, kind, limit, first, second, amount, now)
    if not slot then return {REFUSED, now, i - 1, wait, left} end
    amounts[i], reply[i + 2] = amounts[i] + amount, left
  end
end

local parts = {struct.pack('<BBI6' .. string.rep('I6', n), step, n, admitted_until, unpack(slots))}
for i = 1, n do
  local at = held_amount_at(n, i)
  parts[#parts + 1] = string.sub(held, at - RECORD_BYTES + 6, at - 1)
  parts[#parts + 1] = struct.pack('<I6', amounts[i])
end
parts[#parts + 1] = string.sub(held, HELD_TOP + n * (6 + RECORD_BYTES) + 1)
call('HSET', held_key, id, table.concat(parts))
for i, scope in pairs(states) do save_scope(scope, tonumber(ARGV[3 + i]), now) end
return reply
