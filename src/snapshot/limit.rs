//! Compiled limits, budgets and prices.

use std::sync::Arc;

use crate::policy::limit::period::{self, Zone};
use crate::policy::limit::{Algorithm, Degraded, LimitId, Metric};

pub use crate::policy::limit::period::Period;

/// A limit over a scope.
#[derive(Debug)]
pub struct Limit {
    /// Its name in the document.
    pub name: Arc<str>,
    /// Its stable id.
    pub id: LimitId,
    /// Only for these values; empty: for all.
    pub narrow: Vec<(Dimension, Arc<str>)>,
    /// One counter for each distinct combination of these.
    pub spread: Vec<Dimension>,
    /// What is counted.
    pub metric: Metric,
    /// How; never a budget.
    pub algorithm: Algorithm,
    /// How much: requests, tokens, micro-USD or permits.
    pub limit: u64,
    /// What holds while the store does not answer.
    pub degraded: Degraded,
    /// Whether a stream that outruns it is ended.
    pub hard: bool,
}

impl Limit {
    /// Whether its scope has this dimension, narrowed or spread.
    #[must_use]
    pub fn has(&self, dimension: Dimension) -> bool {
        self.spread.contains(&dimension)
            || self.narrow.iter().any(|(narrow, _)| *narrow == dimension)
    }

    /// Whether every attempt counts, instead of every request once. Tokens and cost always count
    /// by attempt.
    #[must_use]
    pub fn counts_attempts(&self) -> bool {
        self.has(Dimension::Target) || self.has(Dimension::Provider)
    }
}

impl Dimension {
    /// Its name in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
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

/// A dimension of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
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

/// What a tenant or a key may spend in a period.
#[derive(Debug)]
pub struct Budget {
    /// Its stable id.
    pub id: LimitId,
    /// Micro-USD.
    pub limit: u64,
    /// The calendar period.
    pub period: Period,
    /// In whose days.
    pub zone: Zone,
    /// From how many micro-USD on answers warn.
    pub soft: Option<u64>,
    /// Whether a stream that outruns it is ended.
    pub hard: bool,
}

impl Budget {
    /// The period that contains `now_ms`, as [start, end) in milliseconds of Unix time.
    #[must_use]
    pub fn period_at(&self, now_ms: u64) -> (u64, u64) {
        period::period(self.period, &self.zone, now_ms)
    }
}

/// What tokens cost, in pico-USD each (a millionth of a micro-USD), which is USD for a million
/// tokens times 10^6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// A prompt token.
    pub input: u64,
    /// An answer token.
    pub output: u64,
}

impl Price {
    /// The cost in micro-USD, rounded up once.
    #[must_use]
    pub fn cost(self, input_tokens: u64, output_tokens: u64) -> u64 {
        let pico = u128::from(self.input) * u128::from(input_tokens)
            + u128::from(self.output) * u128::from(output_tokens);
        u64::try_from(pico.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}
