//! Whole-node tests on real sockets, in one binary. No sleeps, no fixed ports, no shared state.

mod admin_usage;
mod attacks;
mod bad_input;
mod bodies;
mod cancel;
mod chaos_proxy;
mod clocks;
mod config;
mod drain;
mod errors;
mod first_run;
mod fleet;
mod fleet_limits;
mod fuzz;
#[path = "../chaos/judge/judge.rs"]
#[expect(dead_code, reason = "the chaos run uses it too, and other parts of it")]
mod judge;
mod levels;
mod limits;
mod limits_fleet;
mod listener;
mod reload;
mod retries;
mod security;
mod sim;
mod standalone;
mod store;
mod streams;
mod support;
mod traces;
mod upstream;
mod usage;
