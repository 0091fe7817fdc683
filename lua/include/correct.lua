-- correct: the truth about what was charged before, as a difference on the slot that was charged. If
-- that slot has left, or the limit has changed its shape since, a refund is dropped and an excess
-- counts now. Of a bucket, what has flowed out in its turn is no longer there to be given back: others
-- came in its place. No slot, level or total goes below 0; a limit may be exceeded: that is a debt.
local function correct(scope, id, kind, slot, difference, limit, first, second, now)
  local state = scope.states[id]
  if state then
    -- To now, in its own shape. Nothing in it is as if there were none.
    state_at(scope, id, state[1], limit, state[2], state[3], now)
    if state[1] == WINDOW and state[5] == 0 or state[1] == BUCKET and state[3] == 0 then
      if state[1] == WINDOW and ring_of(scope, id) then scope.rings[id], scope.moved = nil, true end
      state, scope.states[id] = nil, nil
    end
  end
  if not state then
    if difference < 0 then return end
    state = state_at(scope, id, kind, limit, first, second, now)
  end
  if state[1] == WINDOW then
    local head, same = state[4], state[2] == first and state[3] == second
    if not same or slot < head - state[3] then
      if difference < 0 then return end
      slot = head
    end
    -- A slot ahead of the head: the clock went back, and the head took its count along.
    if slot >= head then
      difference = math.max(difference, -state[6])
      state[6] = state[6] + difference
    else
      local count = ring_get(ring_of(scope, id), state, slot)
      difference = math.max(difference, -count)
      ring_put(scope, id, state, slot, struct.pack('<I6', count + difference))
    end
    state[5] = state[5] + difference
  elseif state[1] == BUCKET then
    local change = difference * state[2]
    if change < 0 then change = math.min(0, math.max(change, (state[4] - slot) * limit)) end
    state[3] = math.max(0, state[3] + change)
  elseif difference > 0 or state[2] == first then
    state[4] = math.max(0, state[4] + difference)
  end
end

-- Charges without a check. A budget's period that is not the present one does not come back for what
-- it missed: that counts in the one that is kept.
local function charge_now(scope, id, kind, limit, first, second, amount, now)
  local state = scope.states[id]
  if not (state and kind == BUDGET and (now < first or now >= second)) then
    state = state_at(scope, id, kind, limit, first, second, now)
  end
  local slot = state[1] == WINDOW and state[4] or 0
  correct(scope, id, state[1], slot, amount, limit, state[2], state[3], now)
end
