//! Whole-node tests on real sockets, in one binary. No sleeps, no fixed ports, no shared state.

mod bad_input;
mod bodies;
mod chaos_proxy;
mod config;
mod drain;
mod errors;
mod first_run;
mod fleet;
mod listener;
mod reload;
mod security;
mod sim;
mod support;
mod upstream;
