-- held: what a member of a tag has reserved. Its steps of top-up (1 byte), its number n of charges
-- (1), its admit's deadline (6), the n slots charged (6 each), its n charges (36 each) with amounts
-- as they are now, and the note: bill 0..1 (1), the row's length (2), the row, its estimate of ten
-- counts (8 each), and what only the node reads.
local HELD_TOP = 8

local function held_slot(held, i)
  return (struct.unpack('<I6', held, HELD_TOP + (i - 1) * 6 + 1))
end

-- Where the amount of the i-th of n charges begins.
local function held_amount_at(n, i)
  return HELD_TOP + n * 6 + (i - 1) * RECORD_BYTES + RECORD_BYTES - 5
end

local function held_amount(held, n, i)
  return (struct.unpack('<I6', held, held_amount_at(n, i)))
end

-- The row that the member's usage belongs to, and its estimate; nothing without a bill.
local function held_bill(held, n)
  local at = HELD_TOP + n * (6 + RECORD_BYTES) + 1
  local bill, row, estimate_at = struct.unpack('<BI2c0', held, at)
  if bill == 1 then return row, {struct.unpack('<dddddddddd', held, estimate_at)} end
end
