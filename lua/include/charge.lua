-- charge: one limit's part of a command, a record of 36 bytes: limit id (8), scope (2, from 0), kind,
-- flags (bit 0: the permit's holder is the attempt; the others are the node's), limit, two numbers
-- by kind, amount (6 each). The two are: window: slot_ms, slots; bucket: window_ms, burst; budget:
-- start_ms, end_ms; permits: which of the permits' keys (from 0), nothing.
local WINDOW, BUCKET, BUDGET, PERMITS = 1, 2, 3, 4
local RECORD, RECORD_BYTES = '<c8I2BBI6I6I6I6', 36
