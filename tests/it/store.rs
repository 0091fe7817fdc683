//! The state in Redis: the scripts and what calls them, on real servers.

mod cost;
mod rules;
pub(crate) mod world;
