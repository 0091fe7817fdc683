//! The compiled configuration that requests are served from: immutable, swapped whole.
//!
//! `config` compiles it from a valid fleet document; nothing is looked up by name on the hot path
//! that could have been linked here.

mod limit;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::domain::{BaseUrl, Glob, KeyHash, Secret};
use crate::policy::balance::Strategy;
use crate::provider::Protocol;

pub use limit::{Budget, Dimension, Limit, Period, Price};

/// One whole configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every configuration this node has served; 1 is the first.
    pub revision: u64,
    /// The first 16 hexadecimal digits of the document's SHA-256.
    pub checksum: Box<str>,
    /// All providers, by name.
    pub providers: Vec<Arc<Provider>>,
    /// All targets, by name; `Target::index` points into this list.
    pub targets: Vec<Arc<Target>>,
    /// All pools, by name.
    pub pools: Vec<Arc<Pool>>,
    /// Routes in order: the first match wins.
    pub routes: Vec<Route>,
    /// All limits in the document's order, those of targets after them.
    pub limits: Vec<Arc<Limit>>,
    /// Keys by the hash of what a client presents.
    pub keys: HashMap<KeyHash, Arc<Key>, RandomState>,
    /// Whether a key must be presented: the document names some, even if this node could resolve
    /// none of them. Otherwise any or no key is the tenant `default`.
    pub keys_required: bool,
    /// The identity of everybody while no keys are configured.
    pub anonymous: Arc<Key>,
}

/// A vendor's endpoint.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the document.
    pub name: Arc<str>,
    /// The wire protocol it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub base: BaseUrl,
    /// Our credential there; none for servers that ask for none.
    pub credential: Option<Secret>,
    /// Whether streams may be asked to end with a usage chunk.
    pub usage_in_stream: bool,
    /// Whether it is told which trace a request belongs to.
    pub trace_context: bool,
    /// False where a variable that its credential needs is missing on this node.
    pub enabled: bool,
}

/// Provider, credential and upstream model: the unit of balancing.
#[derive(Debug)]
pub struct Target {
    /// Its place in `Snapshot::targets`.
    pub index: usize,
    /// Its name in the document.
    pub name: Arc<str>,
    /// Where it is.
    pub provider: Arc<Provider>,
    /// The model asked for upstream; none passes the client's on.
    pub model: Option<Arc<str>>,
    /// Its share of a tier; 0 takes part only where nothing else is left.
    pub weight: u32,
    /// Zone label.
    pub zone: Option<Arc<str>>,
    /// Region label; a tenant may be restricted to some.
    pub region: Option<Arc<str>>,
    /// What its tokens cost.
    pub price: Option<Price>,
    /// Its own limits.
    pub limits: Vec<Arc<Limit>>,
}

/// Tiers of targets and how they are used.
#[derive(Debug)]
pub struct Pool {
    /// Its name, which is also a model.
    pub name: Arc<str>,
    /// Tiers in order of preference; a later one serves when the earlier ones cannot.
    pub tiers: Vec<Vec<Arc<Target>>>,
    /// How a target is chosen within a tier.
    pub strategy: Strategy,
    /// The clocks of a request.
    pub timeouts: Timeouts,
    /// At most so many attempts, the first included, over all tiers.
    pub attempts: u32,
    /// How often a silent stream is kept alive with a comment; none is off.
    pub heartbeat: Option<Duration>,
}

/// The separate clocks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name look-up, TCP and TLS.
    pub connect: Duration,
    /// Streams: from the attempt's start until the first content event.
    pub first_token: Duration,
    /// Plain requests: from the attempt's start until the answer's head.
    pub answer: Duration,
    /// Between content events of a stream, and between pieces of a plain body.
    pub idle: Duration,
    /// The whole request with all of its attempts.
    pub total: Duration,
}

impl Default for Timeouts {
    /// The defaults that the interface promises.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_token: Duration::from_secs(60),
            answer: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

/// A named rule from a request to a pool.
#[derive(Debug)]
pub struct Route {
    /// Its name in the document.
    pub name: Arc<str>,
    /// The requested models it takes.
    pub model: Glob,
    /// Where they go.
    pub pool: Arc<Pool>,
}

/// Who pays.
#[derive(Debug)]
pub struct Tenant {
    /// Its name in the document.
    pub name: Arc<str>,
    /// Where its limits, its budgets and its usage are kept.
    pub tag: Arc<str>,
    /// The only providers it may use; none means all.
    pub providers: Option<Vec<Arc<str>>>,
    /// The only regions it may use; none means all. A target without a region is then excluded.
    pub regions: Option<Vec<Arc<str>>>,
    /// Its service class.
    pub tier: Option<Arc<str>>,
    /// What it may spend.
    pub budget: Option<Arc<Budget>>,
}

/// A virtual API key.
#[derive(Debug)]
pub struct Key {
    /// Its name in the document.
    pub name: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// Globs over the requested model or the pool's name; none means all.
    pub models: Option<Vec<Glob>>,
    /// Globs over the upstream model, checked for each attempt; none means all.
    pub upstream_models: Option<Vec<Glob>>,
    /// Unix time in seconds from which it is refused.
    pub expires: Option<i64>,
    /// What it may spend.
    pub budget: Option<Arc<Budget>>,
    /// The limits that may apply to its requests, in the document's order: those that are not
    /// narrowed to another key, tenant or tier. Limits of targets are with the targets.
    pub limits: Vec<Arc<Limit>>,
    /// Where each of `limits` counts, tag and scope, as far as that is the same for all requests of
    /// the key; found by its first request.
    pub places: OnceLock<Places>,
}

/// Tags and scopes of limits; none where they differ from request to request.
pub type Places = Box<[Option<(Arc<str>, Arc<str>)>]>;

impl Snapshot {
    /// The pool that the requested model names: a route's first match, else the pool of that name.
    #[must_use]
    pub fn pool(&self, model: &str) -> Option<&Arc<Pool>> {
        let route = self.routes.iter().find(|route| route.model.matches(model));
        route.map(|route| &route.pool).or_else(|| self.pool_named(model))
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| &*pool.name == name)
    }

    /// False where every provider lacks a variable on this node, so that no request could be served.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        self.providers.is_empty() || self.providers.iter().any(|provider| provider.enabled)
    }

    /// True where every request must carry a key.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys_required
    }
}

impl Key {
    /// Whether the key may ask for `model`, which leads to `pool`.
    #[must_use]
    pub fn may_use(&self, model: &str, pool: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches(model) || glob.matches(pool)))
    }

    /// Whether an attempt of this key at `target`, asking it for `model`, is allowed.
    #[must_use]
    pub fn may_reach(&self, target: &Target, model: &str) -> bool {
        let named = |names: &Option<Vec<Arc<str>>>, name: Option<&str>| {
            names.as_ref().is_none_or(|names| names.iter().any(|allowed| Some(&**allowed) == name))
        };
        named(&self.tenant.providers, Some(&target.provider.name))
            && named(&self.tenant.regions, target.region.as_deref())
            && self
                .upstream_models
                .as_ref()
                .is_none_or(|globs| globs.iter().any(|glob| glob.matches(model)))
    }
}
