--[[ begin: what stands before the lines of each migration. Only whoever holds the lock may go on, and
only from the version before: a holder whose lock ran out, however late it comes, changes nothing. One
that takes something away does so only while no node lives that its caller has not seen.
  KEYS[1]  hash    schema            version, readers, by, at_ms; no TTL
  KEYS[2]  string  migrating         token of whoever migrates; TTL of the lock
  KEYS[3]  zset    nodes             member incarnation, score expiry ms; TTL 7 days
  ARGV[1]  bytes   token
  ARGV[2]  integer version           that the keys have after it
  ARGV[3]  integer readers           the oldest builds that may go on after it
  ARGV[4]  bytes   by                version of the program, for people
  ARGV[5]  integer lock_ms           TTL of the lock from now on
  ARGV[6]  integer contracts         0..1
  ARGV[7+] bytes   incarnation       of a living node that may go on after it
  Returns  {0 done, now}, {2 another one holds the lock, now} or {4 it is not this one's turn, now}
]]
local schema, lock = KEYS[1], KEYS[2]
local now = now_ms()
if call('GET', lock) ~= ARGV[1] then return {REFUSED, now} end
if tonumber(call('HGET', schema, 'version') or 0) ~= ARGV[2] - 1 then return {STALE, now} end
if ARGV[6] == '1' then
  local seen = {}
  for i = 7, #ARGV do seen[ARGV[i]] = true end
  for _, node in ipairs(call('ZRANGEBYSCORE', KEYS[3], string.format('(%.0f', now), '+inf')) do
    if not seen[node] then return {STALE, now} end
  end
end
