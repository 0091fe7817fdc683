//! Whole-node tests on real sockets, in one binary. No sleeps, no fixed ports, no shared state.

mod support;
mod upstream;
mod config;
mod sim;
mod listener;
