-- clock: the one clock of every script, which is Redis's own, in whole milliseconds. 13 digits are
-- exact as a number and as text.
local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
