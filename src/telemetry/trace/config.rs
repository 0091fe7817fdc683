//! What can be set about traces: the standard `OTEL_*` variables, read and checked by `config`.

use std::time::Duration;

use crate::domain::{BaseUrl, Secret};

/// Where traces go, and which. Without one there are none.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Where a batch is posted to: the whole URL, path included.
    pub endpoint: BaseUrl,
    /// Headers of each post. They often hold a credential.
    pub headers: Vec<(String, Secret)>,
    /// The longest that one batch may take, its retries included.
    pub timeout: Duration,
    /// Which requests are traced.
    pub sampler: SamplerConfig,
    /// What the traces say of this process, `service.name` among it.
    pub resource: Vec<(String, String)>,
    /// The most spans that may wait; more are thrown away and counted.
    pub queue: usize,
    /// The most spans in one post; at most `queue`.
    pub batch: usize,
    /// How long a span waits for others to share its post.
    pub delay: Duration,
}

/// Which requests are traced, decided from the head of a request alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Whether a caller's own decision, in its `traceparent`, is followed.
    pub parent_based: bool,
    /// The share of all others, from 0 to 1.
    pub ratio: f64,
}
