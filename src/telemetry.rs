//! What the node says about itself: metrics, with every name in one place, and logs.
//!
//! Neither may ever slow a request down or hold anything of a prompt, an answer or a key.

pub mod log;
mod metrics;
mod series;

pub use metrics::Metrics;
