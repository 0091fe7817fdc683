//! Limits, as the interface has them. None is served yet; they are checked all the same.

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Money, Span};

/// A limit over a scope.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "refused by the walk until limits exist")]
pub(in crate::config) struct Limit {
    /// Its name; unique.
    pub(in crate::config) name: String,
    /// What is counted together.
    pub(in crate::config) scope: Scope,
    /// What is counted.
    pub(in crate::config) metric: Metric,
    /// How. Default: `sliding_window`.
    pub(in crate::config) algorithm: Option<Algorithm>,
    /// How much: an integer, or an amount of money for `cost`.
    pub(in crate::config) limit: Amount,
    /// The most at once of a `token_bucket`. Default: the limit.
    pub(in crate::config) burst: Option<u64>,
    /// Within how long; not for `concurrency`.
    pub(in crate::config) window: Option<Span>,
    /// Whether every request asks the store. Default: `exact`.
    pub(in crate::config) mode: Option<Mode>,
    /// What holds while the store does not answer. Default: `local_share`.
    pub(in crate::config) degraded: Option<Degraded>,
    /// Whether a stream that outruns it is ended. Default: false.
    pub(in crate::config) hard: Option<bool>,
    /// How safely its count is kept. Default: `fast`.
    pub(in crate::config) durability: Option<Durability>,
}

/// A limit of one target.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "refused by the walk until limits exist")]
pub(in crate::config) struct TargetLimit {
    /// Its name; unique. Default: `<target>/<metric>/<window>`.
    pub(in crate::config) name: Option<String>,
    /// What is counted.
    pub(in crate::config) metric: Metric,
    /// How. Default: `sliding_window`.
    pub(in crate::config) algorithm: Option<Algorithm>,
    /// How much: an integer, or an amount of money for `cost`.
    pub(in crate::config) limit: Amount,
    /// The most at once of a `token_bucket`. Default: the limit.
    pub(in crate::config) burst: Option<u64>,
    /// Within how long; not for `concurrency`.
    pub(in crate::config) window: Option<Span>,
    /// Whether every request asks the store. Default: `exact`.
    pub(in crate::config) mode: Option<Mode>,
    /// What holds while the store does not answer. Default: `local_share`.
    pub(in crate::config) degraded: Option<Degraded>,
    /// Whether a stream that outruns it is ended. Default: false.
    pub(in crate::config) hard: Option<bool>,
    /// How safely its count is kept. Default: `fast`.
    pub(in crate::config) durability: Option<Durability>,
}

/// What is counted together: one dimension, several, or one value of some and each of others.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "refused by the walk until limits exist")]
pub(in crate::config) enum Scope {
    /// One counter for each value.
    Word(Dimension),
    /// One counter for each distinct combination.
    Words(Vec<Dimension>),
    /// Only for these values.
    Narrow(Box<Narrow>),
}

/// A dimension of a scope.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Dimension {
    /// The key.
    Key,
    /// The tenant.
    Tenant,
    /// The tenant's user.
    User,
    /// The tenant's service class.
    Tier,
    /// The pool first chosen.
    Pool,
    /// The model first chosen.
    Model,
    /// The target of an attempt.
    Target,
    /// The provider of an attempt.
    Provider,
    /// The client's address.
    Ip,
    /// All there is.
    Fleet,
    /// This node.
    Node,
}

/// One value of some dimensions, spread over others.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "refused by the walk until limits exist")]
pub(in crate::config) struct Narrow {
    /// One counter for each distinct combination of these.
    pub(in crate::config) per: Option<Vec<Dimension>>,
    /// Only this key.
    pub(in crate::config) key: Option<String>,
    /// Only this tenant.
    pub(in crate::config) tenant: Option<String>,
    /// Only this user.
    pub(in crate::config) user: Option<String>,
    /// Only this service class.
    pub(in crate::config) tier: Option<String>,
    /// Only this pool.
    pub(in crate::config) pool: Option<String>,
    /// Only this model.
    pub(in crate::config) model: Option<String>,
    /// Only this target.
    pub(in crate::config) target: Option<String>,
    /// Only this provider.
    pub(in crate::config) provider: Option<String>,
    /// Only this address.
    pub(in crate::config) ip: Option<String>,
    /// Only this fleet.
    pub(in crate::config) fleet: Option<String>,
    /// Only this node.
    pub(in crate::config) node: Option<String>,
}

/// What is counted.
#[derive(Clone, Copy, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Metric {
    /// Requests.
    Requests,
    /// All tokens.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// Money.
    Cost,
    /// Requests at the same time.
    Concurrency,
}

/// How is counted.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Algorithm {
    /// At most the limit in any window.
    SlidingWindow,
    /// Refilled evenly, up to `burst`.
    TokenBucket,
}

/// How much.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "refused by the walk until limits exist")]
pub(in crate::config) enum Amount {
    /// A number of whatever is counted.
    Count(u64),
    /// Money.
    Money(Money),
}

/// Whether every request asks the store.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Mode {
    /// Every request does.
    Exact,
    /// Shares are bought in advance.
    Leased,
}

/// What holds while the store does not answer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Degraded {
    /// Each node admits its share.
    LocalShare,
    /// Nothing is admitted.
    FailClosed,
    /// Everything is admitted.
    FailOpen,
}

/// How safely a count is kept.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Durability {
    /// On the master.
    Fast,
    /// On its replicas too.
    Replicas,
}
