//! What a node does besides serving: watching its configuration, and leaving without loss.

pub mod config_watch;
pub mod drain;
