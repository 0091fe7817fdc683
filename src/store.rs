//! The state that nodes share: keys, scripts and connections.

pub mod breaker;
mod command;
pub mod connection;
mod endpoint;
mod fault;
mod keys;
mod master_clock;
pub mod redis;
pub mod script;
