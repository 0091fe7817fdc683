//! Whole-node tests on real sockets, in one binary. No sleeps, no fixed ports, no shared state.

mod bad_input;
mod cancel;
mod chaos_proxy;
mod clocks;
mod config;
mod listener;
mod retries;
mod sim;
mod streams;
mod support;
mod upstream;
