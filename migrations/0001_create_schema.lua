--[[ 0001_create_schema: there is a record of which shape the keys have. The keys that builds before
it wrote stay as they are.
  Step     expand
  Readers  1
  Frame    begin.lua and end.lua; there is nothing else to do
]]
