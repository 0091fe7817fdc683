-- save: writes a scope's blob back. Other limits of the scope may need it for longer than those of
-- this call: the longest TTL that was ever asked for it is in the blob, and holds.
local function save(key, states, ttl)
  local longest = states['']
  if longest ~= ttl then
    if longest and tonumber(longest) > tonumber(ttl) then ttl = longest else states[''] = ttl end
  end
  redis.call('SET', key, cmsgpack.pack(states), 'PX', ttl)
end
