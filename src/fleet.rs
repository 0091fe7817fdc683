//! What a node does besides serving: watching its configuration.

pub mod config_watch;
