//! The parts of a document that only need linking, the same on every node.

use std::sync::Arc;

use super::Named;
use super::limits::{budget, of_target, price};
use crate::config::counting;
use crate::config::document::{self, Fleet, Span};
use crate::domain::Glob;
use crate::policy::balance::Strategy;
use crate::policy::limit::place;
use crate::snapshot::{Pool, Provider, Route, Target, Tenant, Timeouts};

/// Attempts of a pool that does not say.
const ATTEMPTS: u32 = 3;

// References have been checked before; one that leads nowhere all the same is left out.

pub(super) fn targets(fleet: &Fleet, providers: &Named<Provider>) -> Named<Target> {
    let linked = fleet
        .targets
        .iter()
        .filter_map(|(name, spec)| Some((name, spec, Arc::clone(providers.get(&spec.provider)?))));
    let compiled = linked.enumerate().map(|(index, (name, spec, provider))| {
        let target = Target {
            index,
            name: name.as_str().into(),
            provider,
            model: spec.model.as_deref().map(Into::into),
            weight: spec.weight,
            zone: spec.zone.as_deref().map(Into::into),
            region: spec.region.as_deref().map(Into::into),
            price: spec.price.and_then(price),
            limits: of_target(name, spec),
        };
        (name.clone(), Arc::new(target))
    });
    compiled.collect()
}

pub(super) fn pools(fleet: &Fleet, targets: &Named<Target>) -> Named<Pool> {
    let tier =
        |names: &Vec<String>| names.iter().filter_map(|name| targets.get(name)).cloned().collect();
    let compiled = fleet.pools.iter().map(|(name, spec)| {
        let pool = Pool {
            name: name.as_str().into(),
            tiers: spec.tiers.iter().map(tier).collect(),
            strategy: Strategy::Weighted,
            timeouts: timeouts(&spec.timeouts),
            attempts: spec.retry.attempts.unwrap_or(ATTEMPTS),
            heartbeat: spec.heartbeat.map(|Span(every)| every).filter(|every| !every.is_zero()),
        };
        (name.clone(), Arc::new(pool))
    });
    compiled.collect()
}

fn timeouts(spec: &document::Timeouts) -> Timeouts {
    let default = Timeouts::default();
    let or = |span: Option<Span>, default| span.map_or(default, |Span(duration)| duration);
    Timeouts {
        connect: or(spec.connect, default.connect),
        first_token: or(spec.first_token, default.first_token),
        answer: or(spec.answer, default.answer),
        idle: or(spec.idle, default.idle),
        total: or(spec.total, default.total),
    }
}

pub(super) fn routes(fleet: &Fleet, pools: &Named<Pool>) -> Vec<Route> {
    let linked = fleet.routes.iter().filter_map(|spec| {
        let model = Glob::new(spec.matches.model.as_deref()?);
        let pool = Arc::clone(pools.get(&spec.pool)?);
        Some(Route { name: spec.name.as_str().into(), model, pool })
    });
    linked.collect()
}

pub(super) fn tenants(fleet: &Fleet) -> Named<Tenant> {
    let names = |names: &Option<Vec<String>>| {
        names.as_ref().map(|names| names.iter().map(|name| name.as_str().into()).collect())
    };
    let compiled = fleet.tenants.iter().map(|(name, spec)| {
        let tenant = Tenant {
            name: name.as_str().into(),
            tag: place::tenant(name),
            providers: names(&spec.providers),
            regions: names(&spec.regions),
            tier: spec.tier.as_deref().map(Into::into),
            budget: spec.budget.as_ref().map(|spec| budget(&counting::tenant_budget(name), spec)),
        };
        (name.clone(), Arc::new(tenant))
    });
    compiled.collect()
}

/// The tenant of this name; one that the document does not describe is free to use everything.
pub(super) fn tenant(tenants: &Named<Tenant>, name: &str) -> Arc<Tenant> {
    tenants.get(name).cloned().unwrap_or_else(|| {
        Arc::new(Tenant {
            name: name.into(),
            tag: place::tenant(name),
            providers: None,
            regions: None,
            tier: None,
            budget: None,
        })
    })
}

pub(super) fn globs(globs: Option<&[String]>) -> Option<Vec<Glob>> {
    globs.map(|globs| globs.iter().map(|glob| Glob::new(glob)).collect())
}
