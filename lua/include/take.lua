-- take: one limit's decision. Either it is charged, and the slot that was charged (of a window; of a
-- bucket: when all of it will have flowed out; else 0) and what is left are returned; or nothing changed, and what returns is nothing, what is left,
-- and in how many ms the demand fits (-1: never, or nobody knows).
local function take(scope, id, kind, limit, first, second, amount, now)
  local state = state_at(scope, id, kind, limit, first, second, now)
  if kind == BUCKET then
    local over = state[3] + (amount - second) * first
    if over <= 0 and limit > 0 then
      state[3] = state[3] + amount * first
      return state[4] + math.floor(state[3] / limit), math.floor(-over / first)
    end
    local left = math.max(0, math.floor((second * first - state[3]) / first))
    if amount > second or limit == 0 then return nil, left, -1 end
    return nil, left, math.ceil(over / limit)
  end
  local used = kind == WINDOW and 5 or 4
  local total = state[used]
  local left = limit - total
  if amount <= left and limit > 0 then
    state[used] = total + amount
    if kind == BUDGET then return 0, left - amount end
    state[6] = state[6] + amount
    return state[4], left - amount
  end
  left = math.max(0, left)
  if amount > limit or limit == 0 then return nil, left, -1 end
  if kind == BUDGET then return nil, left, second - now end
  local head, ring = state[4], ring_of(scope, id)
  for slot = head - second, head do
    total = total - (slot == head and state[6] or ring_get(ring, state, slot))
    if total + amount <= limit then return nil, left, (slot + second + 1) * first - now end
  end
  return nil, left, -1
end
