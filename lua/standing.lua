--[[ standing: how limits stand now. Changes nothing.
  KEYS[1+] hash    scope             one of each scope (include/scope)
  KEYS[..] zset    permits           one of each: member holder id, score lease end ms
  ARGV[1]  bytes   head              scopes (2), charges (2)
  ARGV[2]  bytes   charges           36 each (include/charge); amounts do not matter
  Returns  {0, now, used of each charge}
  Cost     O(charges + slots)
]]
--- @include "status"
--- @include "clock"
--- @include "charge"
--- @include "scope"
--- @include "window"
--- @include "states"
local scopes, charges = struct.unpack('<I2I2', ARGV[1])
local now, states = now_ms(), {}
local reply = {OK, now}
for i = 1, charges do
  local limit_id, scope, kind, flags, limit, first, second =
    struct.unpack(RECORD, ARGV[2], (i - 1) * RECORD_BYTES + 1)
  if kind == PERMITS then
    reply[i + 2] = call('ZCOUNT', KEYS[scopes + first + 1], string.format('(%.0f', now), '+inf')
  else
    scope = scope + 1
    states[scope] = states[scope] or open_scope(KEYS[scope])
    local state = state_at(states[scope], limit_id, kind, limit, first, second, now)
    if kind == WINDOW then
      reply[i + 2] = state[5]
    elseif kind == BUCKET then
      reply[i + 2] = math.ceil(state[3] / state[2])
    else
      reply[i + 2] = state[3] <= now and 0 or state[4]
    end
  end
end
return reply
