//! Limits, budgets and prices: scopes that lead somewhere, names that stay apart, numbers that can
//! be counted.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::{Check, DEFAULT_TENANT, Path, root, shown};
use crate::config::counting::{self, Flaw};
use crate::config::document::{Budget, Counting, Dimension, Fleet, Key, Narrow, Scope};
use crate::config::reach::Reach;
use crate::policy::limit::LimitId;
use crate::policy::limit::period::Zone;

/// Limits that can apply to one key, and limits of one target. Every request looks at all of
/// them, and one command names all of their scopes with a byte.
const OF_A_KEY: usize = 128;
const OF_A_TARGET: usize = 32;

/// Whom limits may be narrowed to, as far as the document has no map of them.
struct Known<'a> {
    keys: HashMap<&'a str, &'a Key>,
    tiers: BTreeSet<&'a str>,
}

impl Check<'_> {
    pub(super) fn limits(&mut self) {
        let fleet = self.fleet;
        let known = Known {
            keys: fleet.keys.iter().map(|key| (key.name.as_str(), key)).collect(),
            tiers: fleet.tenants.values().filter_map(|tenant| tenant.tier.as_deref()).collect(),
        };
        for (index, limit) in fleet.limits.iter().enumerate() {
            let path = root("limits").item(index);
            self.counting(&path, &limit.counting());
            self.scope(&path.field("scope"), &limit.scope, &known);
        }
        for (name, target) in &fleet.targets {
            let path = root("targets").field(name);
            let limits = path.field("limits");
            for (index, limit) in target.limits.iter().enumerate() {
                self.counting(&limits.item(index), &limit.counting());
            }
            if target.limits.len() > OF_A_TARGET {
                let what = format!("more than {OF_A_TARGET} limits");
                self.fault(&limits, what, Some("every attempt would ask them all"));
            }
            if let Some(price) = target.price {
                for (field, price) in [("input", price.input), ("output", price.output)] {
                    if let Err(what) = counting::price(price) {
                        let path = path.field("price").field(field);
                        self.fault(&path, what, Some(counting::PRICES));
                    }
                }
            }
        }
        for (path, _, budget) in budgets(fleet) {
            self.budget(&path, budget);
        }
        self.limit_names();
        self.crowds();
    }

    fn flaws(&mut self, path: &Path, flaws: Vec<Flaw>) {
        for Flaw { field, what, hint } in flaws {
            let path = field.map_or_else(|| path.clone(), |field| path.field(field));
            self.fault(&path, what, hint);
        }
    }

    fn counting(&mut self, path: &Path, counting: &Counting) {
        if let Err(flaws) = counting::counted(counting) {
            self.flaws(path, flaws);
        }
    }

    // --- Scopes ---

    fn scope(&mut self, path: &Path, scope: &Scope, known: &Known<'_>) {
        match scope {
            Scope::Word(_) => {}
            Scope::Words(words) => {
                if words.is_empty() {
                    let hint = "name at least one dimension; fleet is all there is";
                    self.fault(path, "empty", Some(hint));
                }
                self.each_once(path, words);
            }
            Scope::Narrow(narrow) => self.narrow(path, narrow, known),
        }
    }

    fn each_once(&mut self, path: &Path, words: &[Dimension]) {
        for (index, word) in words.iter().enumerate() {
            if words.iter().take(index).any(|earlier| earlier == word) {
                let what = format!("`{}` stands twice", word.name());
                self.fault(&path.item(index), what, Some("name it once"));
            }
        }
    }

    fn narrow(&mut self, path: &Path, narrow: &Narrow, known: &Known<'_>) {
        let per = path.field("per");
        self.each_once(&per, narrow.per.as_deref().unwrap_or_default());
        for (index, word) in narrow.per.iter().flatten().enumerate() {
            if narrow.values().any(|(dimension, _)| dimension == *word) {
                let what = format!("`{}` has one value here already", word.name());
                self.fault(&per.item(index), what, Some("name it in one of the two places"));
            }
        }
        if narrow.values().next().is_none() && narrow.per.iter().flatten().next().is_none() {
            self.fault(path, "empty", Some("write scope: fleet for one counter of all there is"));
        }
        for (dimension, value) in narrow.values() {
            self.value(&path.field(dimension.name()), dimension, value, known);
        }
        self.at_odds(path, narrow, known);
    }

    /// The one value of a dimension.
    fn value(&mut self, path: &Path, dimension: Dimension, value: &str, known: &Known<'_>) {
        let fleet = self.fleet;
        match dimension {
            Dimension::Key if !known.keys.contains_key(value) => {
                self.dangling(path, "key", value, known.keys.keys().copied());
            }
            Dimension::Tenant if value != DEFAULT_TENANT && !fleet.tenants.contains_key(value) => {
                let tenants = fleet.tenants.keys().map(String::as_str).chain([DEFAULT_TENANT]);
                self.dangling(path, "tenant", value, tenants);
            }
            Dimension::Tier if !known.tiers.contains(value) => {
                self.dangling(path, "tier", value, known.tiers.iter().copied());
            }
            Dimension::Pool => self.pool_named(path, value),
            Dimension::Target if !fleet.targets.contains_key(value) => {
                self.dangling(path, "target", value, fleet.targets.keys().map(String::as_str));
            }
            Dimension::Provider if !fleet.providers.contains_key(value) => {
                self.dangling(path, "provider", value, fleet.providers.keys().map(String::as_str));
            }
            Dimension::Ip if value.parse::<IpAddr>().is_err() => {
                self.fault(path, "not an address", Some("write for instance 192.0.2.1"));
            }
            Dimension::Model if value.contains('*') => {
                let hint = "name one model, or spread the limit with per: [model]";
                self.fault(path, "a pattern, not a model", Some(hint));
            }
            Dimension::Model | Dimension::User | Dimension::Node => self.plain(path, value),
            _ => {}
        }
    }

    /// Two values that no request has together.
    fn at_odds(&mut self, path: &Path, narrow: &Narrow, known: &Known<'_>) {
        let fleet = self.fleet;
        let key = narrow.key.as_deref().and_then(|name| known.keys.get(name).copied());
        if let (Some(key), Some(tenant)) = (key, &narrow.tenant)
            && tenant_of(key) != tenant
        {
            let what = format!("the key `{}` is of another tenant", shown(&key.name));
            self.fault(&path.field("tenant"), what, Some("leave it out: a key has one tenant"));
        }
        let tenant = narrow.tenant.as_deref().or(key.map(tenant_of));
        let tier_of = |tenant| fleet.tenants.get(tenant).and_then(|tenant| tenant.tier.as_ref());
        if let (Some(tenant), Some(tier)) = (tenant, &narrow.tier)
            && known.tiers.contains(tier.as_str())
            && tier_of(tenant) != Some(tier)
        {
            let hint = "leave it out: a tenant has one tier";
            self.fault(&path.field("tier"), "the tenant is of another tier", Some(hint));
        }
        let target = narrow.target.as_ref().and_then(|name| fleet.targets.get(name));
        if let (Some(target), Some(provider)) = (target, &narrow.provider)
            && target.provider != *provider
        {
            let hint = "leave it out: a target has one provider";
            self.fault(&path.field("provider"), "the target is of another provider", Some(hint));
        }
    }

    // --- Budgets ---

    fn budget(&mut self, path: &Path, budget: &Budget) {
        if let Err(flaws) = counting::budget(budget.limit) {
            self.flaws(path, flaws);
        }
        if let Some(name) = &budget.timezone
            && Zone::named(name).is_none()
        {
            let known = Zone::names();
            let near = self.faults.suggest(name, known.iter().map(String::as_str));
            let hint = near.or(Some("give an IANA name such as Europe/Vienna".to_owned()));
            let what = format!("there is no time zone `{}`", shown(name));
            self.fault(&path.field("timezone"), what, hint.as_deref());
        }
    }

    // --- Names ---

    /// A limit's state is kept under the hash of its name: each has one, and none another's.
    fn limit_names(&mut self) {
        let fleet = self.fleet;
        let mut named: Vec<(Path, String)> = Vec::new();
        for (index, limit) in fleet.limits.iter().enumerate() {
            let path = root("limits").item(index);
            self.name(&path.field("name"), &limit.name);
            named.push((path, limit.name.clone()));
        }
        for (name, target) in &fleet.targets {
            for (index, limit) in target.limits.iter().enumerate() {
                let path = root("targets").field(name).field("limits").item(index);
                if let Some(own) = &limit.name {
                    self.name(&path.field("name"), own);
                }
                named.push((path, counting::name_of(name, limit)));
            }
        }
        named.extend(budgets(fleet).map(|(path, name, _)| (path, name)));
        let mut seen: HashMap<LimitId, (String, String)> = HashMap::new();
        for (path, name) in named {
            if let Some((first, at)) = seen.get(&LimitId::of(&name)) {
                let what = if *first == name {
                    format!("`{}` is already the name of {at}", shown(&name))
                } else {
                    format!("`{}` would be counted as `{}` is", shown(&name), shown(first))
                };
                self.fault(&path.field("name"), what, Some("give it another name"));
            } else {
                seen.insert(LimitId::of(&name), (name, path.to_string()));
            }
        }
    }

    /// More limits than a request can ask.
    fn crowds(&mut self) {
        let fleet = self.fleet;
        let reach = Reach::of(&fleet.limits);
        let tier = |tenant: &str| fleet.tenants.get(tenant).and_then(|t| t.tier.as_deref());
        let whom = fleet
            .keys
            .iter()
            .enumerate()
            .map(|(index, key)| (root("keys").item(index), key.name.as_str(), tenant_of(key)));
        for (path, key, tenant) in whom.chain([(root("limits"), "", DEFAULT_TENANT)]) {
            let found = reach.to(key, tenant, tier(tenant)).len();
            if found > OF_A_KEY {
                let what = format!("{found} limits can apply to it");
                let hint = format!("at most {OF_A_KEY} may: narrow some to other keys or tenants");
                self.fault(&path, what, Some(&hint));
            }
        }
    }
}

fn tenant_of(key: &Key) -> &str {
    key.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
}

/// All budgets with their places and the names that their ids are made of.
fn budgets(fleet: &Fleet) -> impl Iterator<Item = (Path, String, &Budget)> {
    let tenants = fleet.tenants.iter().filter_map(|(name, tenant)| {
        let path = root("tenants").field(name).field("budget");
        Some((path, counting::tenant_budget(name), tenant.budget.as_ref()?))
    });
    let keys = fleet.keys.iter().enumerate().filter_map(|(index, key)| {
        let path = root("keys").item(index).field("budget");
        Some((path, counting::key_budget(&key.name), key.budget.as_ref()?))
    });
    tenants.chain(keys)
}
