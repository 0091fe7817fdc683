-- take: one limit's decision on its state at now. Either it is charged, and the slot that was
-- charged and what is left are returned; or nothing changed, and what returned is nothing, what is
-- left, and in how many ms the demand fits (-1: never, or nobody knows).
local function window_take(state, limit, amount, now)
  local total = state[5]
  if total + amount <= limit and limit > 0 then
    state[5], state[6] = total + amount, state[6] + amount
    return state[4], limit - state[5]
  end
  local left, slot_ms, slots = math.max(0, limit - total), state[2], state[3]
  if amount > limit or limit == 0 then return nil, left, -1 end
  for k = state[4] - slots, state[4] do
    total = total - (k == state[4] and state[6] or ring_get(state, k))
    if total + amount <= limit then return nil, left, (k + slots + 1) * slot_ms - now end
  end
  return nil, left, -1
end

local function bucket_take(state, limit, burst, amount)
  local over = state[3] + (amount - burst) * state[2]
  if over <= 0 and limit > 0 then
    state[3] = state[3] + amount * state[2]
    return 0, math.floor(-over / state[2])
  end
  local left = math.max(0, math.floor((burst * state[2] - state[3]) / state[2]))
  if amount > burst or limit == 0 then return nil, left, -1 end
  return nil, left, math.ceil(over / limit)
end

local function budget_take(state, limit, amount, now)
  if state[4] + amount <= limit and limit > 0 then
    state[4] = state[4] + amount
    return 0, limit - state[4]
  end
  local wait = amount <= limit and limit > 0 and state[3] - now or -1
  return nil, math.max(0, limit - state[4]), wait
end
