-- usage: adds ten counts to a row of an hour. Rows are bounded; what finds no row goes to `other`.
local function add_usage(key, row, counts, sign)
  local stored = call('HGET', key, row)
  if not stored and call('HLEN', key) >= 10000 then
    row = 'other\31\31\31'
    stored = call('HGET', key, row)
  end
  local sums = stored and {struct.unpack('<dddddddddd', stored)} or {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  for i = 1, 10 do sums[i] = sums[i] + sign * counts[i] end
  call('HSET', key, row, struct.pack('<dddddddddd', unpack(sums, 1, 10)))
end

-- The counts of an attempt whose node died: its estimate (attempts are the second count, estimated
-- ones the ninth, those of lost nodes the tenth).
local function of_lost_node(estimate)
  estimate[2], estimate[9], estimate[10] = 1, 1, 1
  return estimate
end
