//! Limits, budgets and prices as requests are served from them: the same on every node.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::counting::{self, counted};
use crate::config::document::{self, Counting, Fleet, Scope};
use crate::config::reach::Reach;
use crate::policy::limit::period::Zone;
use crate::policy::limit::{Degraded, LimitId, Metric};
use crate::snapshot::{Budget, Dimension, Limit, Period, Price, Tenant};

/// The limits of a document, and to whom each can apply.
pub(super) struct Limits<'a> {
    /// At the same places as in the document.
    pub(super) all: Vec<Arc<Limit>>,
    reach: Reach<'a>,
}

impl<'a> Limits<'a> {
    pub(super) fn of(fleet: &'a Fleet) -> Self {
        let all = fleet.limits.iter().map(|spec| {
            let (narrow, spread) = scope(&spec.scope);
            Arc::new(limit(&spec.name, narrow, spread, &spec.counting()))
        });
        Self { all: all.collect(), reach: Reach::of(&fleet.limits) }
    }

    /// Those that can apply to this key, in the document's order.
    pub(super) fn to(&self, key: &str, tenant: &Tenant) -> Vec<Arc<Limit>> {
        let places = self.reach.to(key, &tenant.name, tenant.tier.as_deref());
        places.into_iter().filter_map(|place| self.all.get(place)).cloned().collect()
    }
}

/// The limits of one target.
pub(super) fn of_target(name: &str, spec: &document::Target) -> Vec<Arc<Limit>> {
    let limits = spec.limits.iter().map(|own| {
        let narrow = vec![(Dimension::Target, name.into())];
        Arc::new(limit(&counting::name_of(name, own), narrow, Vec::new(), &own.counting()))
    });
    limits.collect()
}

fn limit(
    name: &str,
    narrow: Vec<(Dimension, Arc<str>)>,
    spread: Vec<Dimension>,
    counting: &Counting,
) -> Limit {
    let counted = counted(counting).expect("the check of the document asks the same");
    Limit {
        name: name.into(),
        id: LimitId::of(name),
        narrow,
        spread,
        metric: metric(counting.metric),
        algorithm: counted.algorithm,
        limit: counted.limit,
        degraded: degraded(counting.degraded),
        hard: counting.hard,
    }
}

/// What a scope is narrowed to and spread over, each in one order, so that a document that names
/// the same dimensions in another order counts on.
fn scope(scope: &Scope) -> (Vec<(Dimension, Arc<str>)>, Vec<Dimension>) {
    let (narrow, spread) = match scope {
        Scope::Word(word) => (Vec::new(), std::slice::from_ref(word)),
        Scope::Words(words) => (Vec::new(), words.as_slice()),
        Scope::Narrow(narrow) => {
            let values =
                narrow.values().map(|(which, value)| (dimension(which), one(which, value)));
            (values.collect(), narrow.per.as_deref().unwrap_or_default())
        }
    };
    let mut spread: Vec<_> = spread.iter().copied().map(dimension).collect();
    spread.sort_unstable();
    (narrow, spread)
}

/// The one value of a dimension; an address as all of its spellings are shown.
fn one(which: document::Dimension, value: &str) -> Arc<str> {
    match (which, value.parse::<IpAddr>()) {
        (document::Dimension::Ip, Ok(ip)) => ip.to_canonical().to_string().into(),
        _ => value.into(),
    }
}

pub(super) fn budget(name: &str, spec: &document::Budget) -> Arc<Budget> {
    let limit = counting::budget(spec.limit).expect("the check of the document asks the same");
    let zone = Zone::named(spec.timezone.as_deref().unwrap_or("UTC"));
    Arc::new(Budget {
        id: LimitId::of(name),
        limit,
        period: match spec.period {
            document::Period::Day => Period::Day,
            document::Period::Week => Period::Week,
            document::Period::Month => Period::Month,
        },
        zone: zone.expect("the check of the document asks the same"),
        soft: spec.soft.map(|share| counting::share_of(limit, share)),
        hard: spec.hard.unwrap_or(false),
    })
}

pub(super) fn price(spec: document::Price) -> Option<Price> {
    let (input, output) = (counting::price(spec.input).ok()?, counting::price(spec.output).ok()?);
    Some(Price { input, output })
}

fn metric(metric: document::Metric) -> Metric {
    match metric {
        document::Metric::Requests => Metric::Requests,
        document::Metric::Tokens => Metric::Tokens,
        document::Metric::InputTokens => Metric::InputTokens,
        document::Metric::OutputTokens => Metric::OutputTokens,
        document::Metric::Cost => Metric::Cost,
        document::Metric::Concurrency => Metric::Concurrency,
    }
}

fn degraded(degraded: Option<document::Degraded>) -> Degraded {
    match degraded {
        None | Some(document::Degraded::LocalShare) => Degraded::LocalShare,
        Some(document::Degraded::FailClosed) => Degraded::FailClosed,
        Some(document::Degraded::FailOpen) => Degraded::FailOpen,
    }
}

fn dimension(dimension: document::Dimension) -> Dimension {
    match dimension {
        document::Dimension::Key => Dimension::Key,
        document::Dimension::Tenant => Dimension::Tenant,
        document::Dimension::User => Dimension::User,
        document::Dimension::Tier => Dimension::Tier,
        document::Dimension::Pool => Dimension::Pool,
        document::Dimension::Model => Dimension::Model,
        document::Dimension::Target => Dimension::Target,
        document::Dimension::Provider => Dimension::Provider,
        document::Dimension::Ip => Dimension::Ip,
        document::Dimension::Fleet => Dimension::Fleet,
        document::Dimension::Node => Dimension::Node,
    }
}
