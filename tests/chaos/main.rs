//! Chaos: a fleet of real nodes on a real Redis, everything that can break is broken, and a judge
//! that was told nothing but what is seen from outside.

#[path = "judge/judge.rs"]
#[expect(dead_code, reason = "the driver that breaks real fleets comes after its judge")]
mod judge;
