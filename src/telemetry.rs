//! What the node says about itself: metrics, with every name in one place, logs, and traces.
//!
//! None of them may ever slow a request down or hold anything of a prompt, an answer or a key.

mod level;
pub mod log;
mod metrics;
mod series;
mod store;
mod trace;

pub use level::{Held, Level, UpstreamLevels};
pub use metrics::Metrics;
pub use store::StoreMetrics;
pub use trace::{
    AttemptFacts, AttemptSpan, RequestFacts, RequestSpan, SamplerConfig, TraceAnswer, TraceConfig,
    TraceCounts, TraceError, TraceSendError, TraceSender, Traces,
};
