//! Simulated providers, for development, tests and load: real sockets, real framing, no model.
//!
//! One file for each wire protocol turns a request into an answer; what is common to all of them
//! (delays, dice, faults, JSON in and out, the connection) lies beside it. Faults are asked for by
//! model name, so that whatever stands in front of the simulator can be tested with nothing but a
//! model in its own configuration. An unknown model is answered as if it existed.
//!
//! Requests are read laxly and without building trees: only what decides the answer is looked at.
//! The service sits directly on `actix_http`, without a router, because the simulator must cost
//! hardly more than an answer made in advance, or a load test measures the simulator.

mod base64;
mod body;
mod chance;
mod config;
mod fault;
mod form;
mod json;
mod openai;
mod reply;
mod sample;
mod server;
mod wire;

pub use config::Config;
pub use fault::{FAULTS, FaultModel};
pub use server::serve;
