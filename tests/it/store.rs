//! The state in Redis: the scripts and what calls them, on real servers.

mod cost;
mod differential;
mod faults;
mod rules;
mod servers;
pub(crate) mod world;
