-- status: the first number of a reply; `command::Status` in Rust has the same ones. The second is
-- always now, in ms, so that a node learns by each reply how far its clock is from this one.
local OK, DUPLICATE, REFUSED, LATE, STALE, ASK = 0, 1, 2, 3, 4, 5
local call = redis.call
