--[[ lapsed: members of a tag whose lease has ended, for any node to settle. Changes nothing.
  KEYS[1]  zset    open              member attempt id, score lease end ms
  KEYS[2]  hash    held              attempt id -> what it reserved (include/held)
  ARGV[1]  integer most              1..1000
  Returns  {0, now, attempt id, held, ...}: numbers, then bytes in pairs
  Cost     O(log n + most)
]]
--- @include "status"
--- @include "clock"
local now = now_ms()
local reply = {OK, now}
local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', '0', ARGV[1])
if #ids == 0 then return reply end
local held = call('HMGET', KEYS[2], unpack(ids))
for i, id in ipairs(ids) do
  reply[#reply + 1] = id
  reply[#reply + 1] = held[i] or ''
end
return reply
