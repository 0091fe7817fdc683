//! The fleet document as types: every field of the interface, whether it is served yet or not.
//!
//! The JSON schema is made from these types and the texts above their fields, and the schema is
//! what documents are checked against; so a field is described exactly once, here. Fields and
//! values whose machinery does not exist yet carry `x-served: false`: they are checked like all
//! others and then refused, never ignored.

mod key;
mod limit;
mod pool;
mod provider;
mod scalar;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use key::{Budget, Key, Period, Tenant};
pub(super) use limit::{
    Algorithm, Amount, Counting, Degraded, Dimension, Limit, Metric, Narrow, Scope, TargetLimit,
};
pub(super) use pool::{Pool, Route, Timeouts};
pub(super) use provider::{Price, Provider, Target};
pub(super) use scalar::{Money, Span, check as scalar_check};

use super::tree::{Node, Path, Place};

/// A fleet document that is free of faults, with its text's places and checksum.
///
/// It is the same on every node: variables are resolved when it is compiled.
pub struct Document {
    /// The file as it was named.
    pub(super) file: String,
    /// The first 16 hexadecimal digits of the text's SHA-256.
    pub(super) checksum: String,
    pub(super) root: Node,
    pub(super) fleet: Fleet,
}

impl Document {
    /// The first 16 hexadecimal digits of the SHA-256 of its text.
    #[must_use]
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// How many there are of each kind of thing.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 7] {
        let fleet = &self.fleet;
        let of_targets = fleet.targets.values().map(|target| target.limits.len());
        [
            ("providers", fleet.providers.len()),
            ("targets", fleet.targets.len()),
            ("pools", fleet.pools.len()),
            ("routes", fleet.routes.len()),
            ("tenants", fleet.tenants.len()),
            ("keys", fleet.keys.len()),
            ("limits", fleet.limits.len() + of_targets.sum::<usize>()),
        ]
    }

    pub(super) fn place(&self, path: &Path) -> Place {
        self.root.place(path)
    }
}

impl fmt::Debug for Document {
    /// Not its content, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({}, {})", self.file, self.checksum)
    }
}

/// A Flotilla fleet document: which providers there are, what may be asked of them, and by whom.
///
/// Durations and amounts carry units. `${NAME}` is the value of an environment variable of the
/// node that serves; it may stand in `api_key`, `base_url` and `key`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Flotilla fleet document")]
pub(super) struct Fleet {
    /// Vendors' endpoints by name: wire protocol, base URL, credential.
    #[serde(default)]
    pub(super) providers: BTreeMap<String, Provider>,
    /// Targets by name: a provider and a model there; the unit of balancing.
    #[serde(default)]
    pub(super) targets: BTreeMap<String, Target>,
    /// Pools by name: tiers of targets and how they are used. A pool's name is a model too.
    pub(super) pools: BTreeMap<String, Pool>,
    /// Rules from requests to pools; the first match wins.
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    /// Who pays, by name. The tenant `default` always exists.
    #[serde(default)]
    pub(super) tenants: BTreeMap<String, Tenant>,
    /// Virtual API keys. With none, every request is of the tenant `default`.
    #[serde(default)]
    pub(super) keys: Vec<Key>,
    /// Limits of requests, tokens, cost and concurrency.
    #[serde(default)]
    pub(super) limits: Vec<Limit>,
}
