//! Tenants and their keys: who may ask for what, and who pays.

use schemars::JsonSchema;
use serde::Deserialize;

use super::limit::Durability;
use super::scalar::{Hash, Money, Time, Variables};

/// Who pays.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tenant {
    /// Its service class.
    pub(in crate::config) tier: Option<String>,
    /// What it may spend.
    pub(in crate::config) budget: Option<Budget>,
    /// The only providers it may use. Left out: all. Empty: none.
    pub(in crate::config) providers: Option<Vec<String>>,
    /// The only regions it may use; targets without a region are then excluded. Left out: all.
    pub(in crate::config) regions: Option<Vec<String>>,
}

/// What may be spent in a period.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Budget {
    /// The amount.
    pub(in crate::config) limit: Money,
    /// The period after which it starts anew.
    pub(in crate::config) period: Period,
    /// In whose days, weeks and months: an IANA name such as `Europe/Vienna`. Default: UTC.
    pub(in crate::config) timezone: Option<String>,
    /// The share that warns, from 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub(in crate::config) soft: Option<f64>,
    /// Whether a request that outruns it is ended.
    pub(in crate::config) hard: Option<bool>,
    /// How safely it is kept. Default: `fast`.
    #[expect(dead_code, reason = "there is one; the walk refuses the other")]
    pub(in crate::config) durability: Option<Durability>,
}

/// A calendar period.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

/// A virtual API key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Key {
    /// Its name; unique.
    pub(in crate::config) name: String,
    /// Whose it is. Default: the tenant `default`.
    pub(in crate::config) tenant: Option<String>,
    /// The key itself; only its hash is kept. Either this or `hash`.
    pub(in crate::config) key: Option<Variables>,
    /// The key's hash. Either this or `key`.
    pub(in crate::config) hash: Option<Hash>,
    /// What it may ask for: globs over the requested model or the pool's name. Left out: all.
    pub(in crate::config) models: Option<Vec<String>>,
    /// Globs over the models asked for upstream, checked for each attempt. Left out: all.
    pub(in crate::config) upstream_models: Option<Vec<String>>,
    /// From when on it is refused.
    pub(in crate::config) expires: Option<Time>,
    /// What it may spend.
    pub(in crate::config) budget: Option<Budget>,
}
