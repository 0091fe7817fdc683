//! The state that nodes share: keys, scripts and connections.

pub mod breaker;
mod clock;
mod command;
pub mod connection;
mod endpoint;
mod fault;
mod keys;
pub mod redis;
pub mod script;
