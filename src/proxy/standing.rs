//! Which limits apply to a key, and where each of them counts: for operators who ask how they stand.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::demand::{self, Facts};
use crate::policy::limit::{Algorithm, Degraded, Metric, Rule};
use crate::snapshot::{Budget, Dimension, Key, Limit, Snapshot, Target};

/// What is known of the request that is asked about, beside its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The model.
    pub model: Option<&'a str>,
    /// The client's own user.
    pub user: Option<&'a str>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The only target of interest.
    pub target: Option<&'a str>,
}

/// A limit or a budget that applies.
#[derive(Clone, Debug)]
pub struct Applying {
    /// Its name: of the limit in the document, or `budget of tenant ...`.
    pub name: Arc<str>,
    /// What is counted.
    pub metric: Metric,
    /// The rule.
    pub rule: Rule,
    /// What holds while the store does not answer.
    pub degraded: Degraded,
    /// Whether a stream that outruns it is ended.
    pub hard: bool,
    /// The dimensions that have one counter for each value.
    pub per: Vec<&'static str>,
    /// The target whose limit it is.
    pub target: Option<Arc<str>>,
    /// Tag and scope; none where it depends on what is not known.
    pub place: Option<(Arc<str>, Arc<str>)>,
}

/// All limits and budgets that apply to requests of `key`, as far as they are known, at `now_ms`.
#[must_use]
pub fn applying(
    snapshot: &Snapshot,
    key: &Key,
    node: &str,
    known: Known<'_>,
    now_ms: u64,
) -> Vec<Applying> {
    let pool = known.model.and_then(|model| snapshot.pool(model));
    let facts = Facts {
        key,
        pool: pool.map_or("", |pool| &pool.name),
        model: known.model.unwrap_or_default(),
        user: known.user,
        ip: known.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        node,
    };
    let is_known = |dimension| match dimension {
        Dimension::User => known.user.is_some(),
        Dimension::Pool | Dimension::Model => known.model.is_some(),
        Dimension::Ip => known.ip.is_some(),
        Dimension::Key
        | Dimension::Tenant
        | Dimension::Tier
        | Dimension::Target
        | Dimension::Provider
        | Dimension::Fleet
        | Dimension::Node => true,
    };
    let targets = snapshot.targets.iter().filter(|target| {
        let model = target.model.as_deref().or(known.model).unwrap_or_default();
        known.target.is_none_or(|name| *target.name == *name) && key.may_reach(target, model)
    });
    let mut applying = Vec::new();
    let mut add = |limit: &Limit, target: Option<&Target>| {
        let dimensions = limit.narrow.iter().map(|(dimension, _)| dimension).chain(&limit.spread);
        let all_known = dimensions.copied().all(is_known);
        let place = match (all_known, target) {
            (false, _) => None,
            (true, target) => match demand::place(limit, &facts, target) {
                Some(place) => Some(place),
                None => return,
            },
        };
        applying.push(Applying {
            name: Arc::clone(&limit.name),
            metric: limit.metric,
            rule: Rule { id: limit.id, algorithm: limit.algorithm, limit: limit.limit },
            degraded: limit.degraded,
            hard: limit.hard,
            per: limit.spread.iter().map(|dimension| dimension.as_str()).collect(),
            target: target.map(|target| Arc::clone(&target.name)),
            place,
        });
    };
    for limit in key.limits.iter().filter(|limit| !limit.counts_attempts()) {
        add(limit, None);
    }
    for target in targets {
        let by_target = key.limits.iter().filter(|limit| limit.counts_attempts());
        for limit in by_target.chain(&target.limits) {
            add(limit, Some(target));
        }
    }
    let tenant = &key.tenant;
    let budgets = [
        (&tenant.budget, format!("budget of tenant {}", tenant.name), demand::budget_scope(None)),
        (&key.budget, format!("budget of key {}", key.name), demand::budget_scope(Some(&key.name))),
    ];
    for (budget, name, scope) in budgets {
        if let Some(budget) = budget {
            applying.push(spent(budget, name, (Arc::clone(&tenant.tag), scope.into()), now_ms));
        }
    }
    applying
}

fn spent(budget: &Budget, name: String, place: (Arc<str>, Arc<str>), now_ms: u64) -> Applying {
    let (start_ms, end_ms) = budget.period_at(now_ms);
    let algorithm = Algorithm::Budget { start_ms, end_ms };
    Applying {
        name: name.into(),
        metric: Metric::Cost,
        rule: Rule { id: budget.id, algorithm, limit: budget.limit },
        degraded: Degraded::LocalShare,
        hard: budget.hard,
        per: Vec::new(),
        target: None,
        place: Some(place),
    }
}
