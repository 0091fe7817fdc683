--[[ unlock: gives the lock back, if it is still one's own.
  KEYS[1]  string  migrating         token of whoever migrates; TTL of the lock
  ARGV[1]  bytes   token
  Returns  1 given back, 0 it was not one's own any more
]]
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
