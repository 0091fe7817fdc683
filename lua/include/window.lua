-- window: {1, slot_ms, slots, head, total, count of head}, at most the limit in any window of slots *
-- slot_ms. That window touches slots + 1 slots, and all of them are counted: never over, and under
-- by 1 in slots + 1 at worst. Its ring holds the slots but the head's, 6 bytes each, at slot modulo
-- slots + 1; none stands for all zeros.
local function ring_of(scope, id)
  if not scope.rings then
    local blob = call('HGET', scope.key, 'r')
    scope.rings = blob and cmsgpack.unpack(blob) or {}
  end
  return scope.rings[id]
end

local function ring_get(ring, state, slot)
  return ring and struct.unpack('<I6', ring, slot % (state[3] + 1) * 6 + 1) or 0
end

-- Puts bytes from a slot on, around the end of the ring.
local function ring_put(scope, id, state, slot, bytes)
  local size, at = (state[3] + 1) * 6, slot % (state[3] + 1) * 6
  local ring, over = ring_of(scope, id) or string.rep('\0', size), at + #bytes - size
  if over > 0 then
    ring = string.sub(bytes, -over) .. string.sub(ring, over + 1)
    bytes = string.sub(bytes, 1, -over - 1)
  end
  scope.rings[id] = string.sub(ring, 1, at) .. bytes .. string.sub(ring, at + #bytes + 1)
  scope.moved = true
end

-- Brings a window to the slot that now is in. A clock that went back leaves the head; one that was a
-- whole window ahead and is right again takes the total along.
local function window_to(scope, id, state, slot)
  local slots, head, ring = state[3], state[4], ring_of(scope, id)
  if slot < head and head - slot <= slots then return end
  if slot < head then
    state[6], scope.rings[id], scope.moved = state[5], nil, true
  elseif slot - head > slots then
    state[5], state[6], scope.rings[id], scope.moved = 0, 0, nil, true
  else
    local gone = 0
    for k = head - slots, slot - slots - 1 do gone = gone + ring_get(ring, state, k) end
    if state[6] > 0 then ring_put(scope, id, state, head, struct.pack('<I6', state[6])) end
    if gone > 0 then ring_put(scope, id, state, head - slots, string.rep('\0', (slot - head) * 6)) end
    state[5], state[6] = state[5] - gone, 0
  end
  state[4] = slot
end
