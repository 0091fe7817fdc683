//! Limits, as the interface has them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{Money, Span};

/// A limit over a scope.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    pub(in crate::config) burst: Option<Amount>,
    /// Within how long, from 100ms to 32d; not for `concurrency`.
    pub(in crate::config) window: Option<Span>,
    /// Whether every request asks the store. Default: `exact`.
    #[expect(dead_code, reason = "there is one; the walk refuses the other")]
    pub(in crate::config) mode: Option<Mode>,
    /// What holds while the store does not answer. Default: `local_share`.
    pub(in crate::config) degraded: Option<Degraded>,
    /// Whether a stream that outruns it is ended. Default: false.
    pub(in crate::config) hard: Option<bool>,
    /// How safely its count is kept. Default: `fast`.
    #[expect(dead_code, reason = "there is one; the walk refuses the other")]
    pub(in crate::config) durability: Option<Durability>,
}

/// A limit of one target.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    pub(in crate::config) burst: Option<Amount>,
    /// Within how long, from 100ms to 32d; not for `concurrency`.
    pub(in crate::config) window: Option<Span>,
    /// Whether every request asks the store. Default: `exact`.
    #[expect(dead_code, reason = "there is one; the walk refuses the other")]
    pub(in crate::config) mode: Option<Mode>,
    /// What holds while the store does not answer. Default: `local_share`.
    pub(in crate::config) degraded: Option<Degraded>,
    /// Whether a stream that outruns it is ended. Default: false.
    pub(in crate::config) hard: Option<bool>,
    /// How safely its count is kept. Default: `fast`.
    #[expect(dead_code, reason = "there is one; the walk refuses the other")]
    pub(in crate::config) durability: Option<Durability>,
}

/// What is counted together: one dimension, several, or one value of some and each of others.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Scope {
    /// One counter for each value.
    Word(Dimension),
    /// One counter for each distinct combination.
    Words(Vec<Dimension>),
    /// Only for these values.
    Narrow(Box<Narrow>),
}

/// A dimension of a scope.
#[derive(Clone, Copy, Deserialize, JsonSchema, PartialEq, Eq)]
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
    #[schemars(extend("x-served" = false))]
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
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Algorithm {
    /// At most the limit in any window.
    SlidingWindow,
    /// Refilled evenly, up to `burst`.
    TokenBucket,
}

/// How much.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
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
    #[schemars(extend("x-served" = false))]
    Leased,
}

/// What holds while the store does not answer.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
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
    #[schemars(extend("x-served" = false))]
    Replicas,
}

/// What limits of both kinds say about counting.
#[derive(Clone, Copy)]
pub(in crate::config) struct Counting {
    pub(in crate::config) metric: Metric,
    pub(in crate::config) algorithm: Option<Algorithm>,
    pub(in crate::config) limit: Amount,
    pub(in crate::config) burst: Option<Amount>,
    pub(in crate::config) window: Option<Span>,
    pub(in crate::config) degraded: Option<Degraded>,
    pub(in crate::config) hard: bool,
}

impl Limit {
    pub(in crate::config) fn counting(&self) -> Counting {
        Counting {
            metric: self.metric,
            algorithm: self.algorithm,
            limit: self.limit,
            burst: self.burst,
            window: self.window,
            degraded: self.degraded,
            hard: self.hard.unwrap_or(false),
        }
    }
}

impl TargetLimit {
    pub(in crate::config) fn counting(&self) -> Counting {
        Counting {
            metric: self.metric,
            algorithm: self.algorithm,
            limit: self.limit,
            burst: self.burst,
            window: self.window,
            degraded: self.degraded,
            hard: self.hard.unwrap_or(false),
        }
    }
}

impl Dimension {
    /// Its name in a document.
    pub(in crate::config) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Tier => "tier",
            Self::Pool => "pool",
            Self::Model => "model",
            Self::Target => "target",
            Self::Provider => "provider",
            Self::Ip => "ip",
            Self::Fleet => "fleet",
            Self::Node => "node",
        }
    }
}

impl Narrow {
    /// The dimensions that have one value, with it.
    pub(in crate::config) fn values(&self) -> impl Iterator<Item = (Dimension, &str)> {
        let all = [
            (Dimension::Key, &self.key),
            (Dimension::Tenant, &self.tenant),
            (Dimension::User, &self.user),
            (Dimension::Tier, &self.tier),
            (Dimension::Pool, &self.pool),
            (Dimension::Model, &self.model),
            (Dimension::Target, &self.target),
            (Dimension::Provider, &self.provider),
            (Dimension::Ip, &self.ip),
            (Dimension::Fleet, &self.fleet),
            (Dimension::Node, &self.node),
        ];
        all.into_iter().filter_map(|(dimension, value)| Some((dimension, value.as_deref()?)))
    }
}
