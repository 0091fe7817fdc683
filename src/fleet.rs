//! What a node does besides serving: being one of its fleet, watching its configuration, and leaving
//! without loss.

pub mod config_watch;
pub mod drain;
mod join;
pub mod member;
mod sweep;
mod vigil;
