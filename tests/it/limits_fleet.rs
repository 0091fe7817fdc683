//! Limits of a whole fleet on a real Redis: N nodes admit what one would, and never far below.
//!
//! What clients and the wall saw is judged by `judge`, which knows nothing of the product; what a
//! test says in numbers besides is the same in plain words.

mod exact;
mod leases;
mod outage;
mod price;
mod refusals;
mod rig;
mod skew;
