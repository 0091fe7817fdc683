//! Flotilla: a fleet of identical, stateless AI API proxy nodes that behave as one.
//!
//! The folders are the architecture: dependencies point down only, as the table in
//! `docs/ARCHITECTURE.md` says and `tests/architecture.rs` enforces.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod fleet;
pub mod policy;
pub mod provider;
pub mod proxy;
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod upstream;
