-- states: what a scope's blob holds, limit id -> state: a window; a bucket {2, window_ms, level, at}
-- whose level is in units * window_ms; a budget {3, start, end, spent}. Under '' is the longest TTL
-- that was asked for it, as text.
local function bucket_at(state, limit, now)
  if state[4] - now > state[2] then state[4] = now end
  if now > state[4] then
    state[3] = math.max(0, state[3] - (now - state[4]) * limit)
    state[4] = now
  end
end

-- The state of a limit at now, in the shape that the limit has. Of another shape: what was used of
-- it goes to the newest slot, or the level.
local function state_at(states, id, kind, limit, first, second, now)
  local state, used = states[id], 0
  if state then
    local same = state[1] == kind and (kind == BUDGET or state[2] == first)
    if state[1] == WINDOW then
      window_at(state, now)
      if same and state[3] == second then return state end
      used = state[5]
    elseif state[1] == BUCKET then
      bucket_at(state, limit, now)
      if same then return state end
      used = math.ceil(state[3] / state[2])
    else
      if same and state[2] == first and state[3] == second then return state end
      -- A period that is over takes its count along; one that was redefined keeps it.
      used = state[3] <= now and 0 or state[4]
    end
  end
  if kind == WINDOW then
    state = {kind, first, second, math.floor(now / first), used, used, ''}
  elseif kind == BUCKET then
    state = {kind, first, used * first, now}
  else
    state = {kind, first, second, used}
  end
  states[id] = state
  return state
end
