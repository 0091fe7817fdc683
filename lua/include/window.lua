-- window {1, slot_ms, slots, head, total, count of head, ring}: at most the limit in any window of
-- slots * slot_ms. That window touches slots + 1 slots, and all of them are counted: never over, and
-- under by 1 in slots + 1 at worst. The ring holds the slots but the head's, 6 bytes each, at slot
-- modulo slots + 1; '' stands for all zeros.
local function ring_get(state, slot)
  if state[7] == '' then return 0 end
  return (struct.unpack('<I6', state[7], slot % (state[3] + 1) * 6 + 1))
end

local function ring_set(state, slot, bytes)
  local ring, size, at = state[7], (state[3] + 1) * 6, slot % (state[3] + 1) * 6
  if ring == '' then ring = string.rep('\0', size) end
  local over = at + #bytes - size
  if over > 0 then
    ring = string.sub(bytes, -over) .. string.sub(ring, over + 1)
    bytes = string.sub(bytes, 1, -over - 1)
  end
  state[7] = string.sub(ring, 1, at) .. bytes .. string.sub(ring, at + #bytes + 1)
end

-- Brings a window to now. A clock that went back leaves the head; one that was a whole window ahead
-- and is right again takes the total along.
local function window_at(state, now)
  local slot, slots, head = math.floor(now / state[2]), state[3], state[4]
  if slot == head then return end
  if slot < head then
    if head - slot > slots then state[4], state[6], state[7] = slot, state[5], '' end
    return
  end
  if slot - head > slots then
    state[5], state[7] = 0, ''
  else
    if state[6] > 0 then ring_set(state, head, struct.pack('<I6', state[6])) end
    local gone = 0
    for k = head - slots, slot - slots - 1 do gone = gone + ring_get(state, k) end
    if gone > 0 then
      state[5] = state[5] - gone
      ring_set(state, head - slots, string.rep('\0', (slot - head) * 6))
    end
  end
  state[4], state[6] = slot, 0
end
