-- clock, of tests alone: the time is one more argument behind all others, so that histories can be
-- replayed. No node sends a script that holds this piece.
local function now_ms()
  return tonumber(table.remove(ARGV))
end
