//! Whole-node tests on real sockets, in one binary. No sleeps, no fixed ports, no shared state.

mod bad_input;
mod chaos_proxy;
mod config;
mod listener;
mod sim;
mod support;
mod traces;
mod upstream;
