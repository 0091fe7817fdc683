//! Pools and routes: how requests find a target.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::scalar::Span;

/// Tiers of targets and how they are used.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Pool {
    /// How a target is chosen within a tier. Default: `weighted`.
    #[expect(dead_code, reason = "there is one; the walk refuses the others")]
    pub(in crate::config) strategy: Option<Strategy>,
    /// Names of targets; a later tier serves when the earlier ones cannot.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub(in crate::config) tiers: Vec<Vec<String>>,
    /// Pools to go on with when no tier can serve.
    #[serde(default)]
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) fallback: Vec<String>,
    /// Pools to go on with after certain errors.
    #[serde(default)]
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) fallback_on: FallbackOn,
    /// The clocks of a request.
    #[serde(default)]
    pub(in crate::config) timeouts: Timeouts,
    /// How often is tried.
    #[serde(default)]
    pub(in crate::config) retry: Retry,
    /// When a failing target is left alone.
    #[expect(dead_code, reason = "refused by the walk until breakers exist")]
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) breaker: Option<Breaker>,
    /// A second attempt beside a slow first one.
    #[expect(dead_code, reason = "refused by the walk until hedging exists")]
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) hedge: Option<Value>,
    /// How often a silent stream is kept alive with a comment; `0s`, the default, is off.
    pub(in crate::config) heartbeat: Option<Span>,
}

/// How a target is chosen within a tier.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Strategy {
    /// At random, in proportion to the weights.
    Weighted,
    /// One after the other.
    #[schemars(extend("x-served" = false))]
    RoundRobin,
    /// One after the other, in proportion to the weights.
    #[schemars(extend("x-served" = false))]
    SmoothWeighted,
    /// The one with the fewest requests in flight.
    #[schemars(extend("x-served" = false))]
    LeastInFlight,
    /// The one that answers soonest.
    #[schemars(extend("x-served" = false))]
    LeastLatency,
    /// The cheapest.
    #[schemars(extend("x-served" = false))]
    Cost,
    /// The same one for the same user.
    #[schemars(extend("x-served" = false))]
    Hash,
    /// The first that can.
    #[schemars(extend("x-served" = false))]
    Priority,
}

/// Pools by the error that leads to them.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FallbackOn {
    /// The prompt is longer than the model takes.
    pub(in crate::config) context_length: Option<String>,
    /// The provider's filter refused the content.
    pub(in crate::config) content_filter: Option<String>,
}

/// The clocks of a request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    /// Name look-up, TCP and TLS. Default: 2s.
    pub(in crate::config) connect: Option<Span>,
    /// Streams: until the first content event, reasoning included. Default: 60s.
    pub(in crate::config) first_token: Option<Span>,
    /// Plain requests: until the answer's head. Default: 5m.
    pub(in crate::config) answer: Option<Span>,
    /// Between content events. Default: 60s.
    pub(in crate::config) idle: Option<Span>,
    /// The whole request with all of its attempts. Default: 10m.
    pub(in crate::config) total: Option<Span>,
}

/// How often is tried.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// At most so many attempts, the first included, over all tiers. Default: 3.
    #[schemars(range(max = 100))]
    pub(in crate::config) attempts: Option<u32>,
}

/// When a failing target is left alone.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "refused by the walk until breakers exist")]
pub(in crate::config) struct Breaker {
    /// After so many failures in a row. Default: 5.
    pub(in crate::config) consecutive: Option<u32>,
    /// For so long. Default: 10s.
    pub(in crate::config) recovery: Option<Span>,
}

/// A named rule from requests to a pool.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// Its name; unique.
    pub(in crate::config) name: String,
    /// What a request must look like; all of the conditions given must hold.
    #[serde(rename = "match")]
    pub(in crate::config) matches: Match,
    /// The name of the pool that serves it.
    pub(in crate::config) pool: String,
}

/// What a request must look like.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the walk refuses all but `model` until they exist")]
pub(in crate::config) struct Match {
    /// The requested model; `*` stands for any run of characters.
    pub(in crate::config) model: Option<String>,
    /// The path of the request.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) path: Option<String>,
    /// Headers of the request.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) header: Option<BTreeMap<String, String>>,
    /// The tenant.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) tenant: Option<String>,
    /// The tenant's service class.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) tier: Option<String>,
    /// What the request asks for.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) content: Option<Value>,
    /// When it comes.
    #[schemars(extend("x-served" = false))]
    pub(in crate::config) time: Option<Value>,
}
