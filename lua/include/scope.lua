-- scope: a counter's owner, a hash of two fields. `s` holds limit id -> state (include/states), `r`
-- the rings of its windows, limit id -> ring, apart because only a new slot needs them. Under '' in
-- `s`: the longest TTL that was asked for, and when it was set last; it is set again after 30 s of
-- the 60 s that every TTL has to spare.
local function open_scope(key)
  local blob = call('HGET', key, 's')
  return {key = key, states = blob and cmsgpack.unpack(blob) or {}}
end

local function save_scope(scope, ttl, now)
  local states, key = scope.states, scope.key
  local kept = states['']
  local stale = not kept or kept[1] < ttl or math.abs(now - kept[2]) >= 30000
  if stale then states[''] = {math.max(kept and kept[1] or 0, ttl), now} end
  if scope.moved then
    call('HSET', key, 's', cmsgpack.pack(states), 'r', cmsgpack.pack(scope.rings))
  else
    call('HSET', key, 's', cmsgpack.pack(states))
  end
  if stale then call('PEXPIRE', key, string.format('%.0f', states[''][1])) end
end
