-- states: a window (include/window); a bucket {2, window_ms, level, at} whose level is in units *
-- window_ms; a budget {3, start_ms, end_ms, spent}. What is returned is the state of a limit at now,
-- in the shape that the limit has. Of another shape: what was used of it goes to the newest slot,
-- or the level; of a budget's period that is over, nothing does.
local function state_at(scope, id, kind, limit, first, second, now)
  local state, used = scope.states[id], 0
  if state then
    local same = state[1] == kind and state[2] == first
    if state[1] == WINDOW then
      local slot = math.floor(now / state[2])
      if slot ~= state[4] then window_to(scope, id, state, slot) end
      if same and state[3] == second then return state end
      used = state[5]
      if ring_of(scope, id) then scope.rings[id], scope.moved = nil, true end
    elseif state[1] == BUCKET then
      if state[4] - now > state[2] then state[4] = now end
      if now > state[4] then
        state[3], state[4] = math.max(0, state[3] - (now - state[4]) * limit), now
      end
      if same then return state end
      used = math.ceil(state[3] / state[2])
    else
      if same and state[3] == second then return state end
      used = state[3] <= now and 0 or state[4]
    end
  end
  if kind == WINDOW then
    state = {kind, first, second, math.floor(now / first), used, used}
  elseif kind == BUCKET then
    state = {kind, first, used * first, now}
  else
    state = {kind, first, second, used}
  end
  scope.states[id] = state
  return state
end
