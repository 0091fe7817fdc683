//! Pure decisions: the same state, time and random number always give the same answer.
//!
//! No async, no I/O, no clock and no logging here: `now` and randomness are arguments, and a
//! decision returns its reason for others to record.

pub mod balance;
pub mod estimate;
pub mod limit;
pub mod retry;
