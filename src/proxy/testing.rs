//! Small snapshots for the unit tests of the phases.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::domain::{Glob, KeyHash};
use crate::policy::balance::Strategy;
use crate::provider::Protocol;
use crate::snapshot::{Key, Pool, Provider, Route, Snapshot, Target, Tenant, Timeouts};

pub(super) fn tenant(name: &str, providers: Option<&[&str]>) -> Arc<Tenant> {
    let providers = providers.map(|names| names.iter().map(|name| Arc::from(*name)).collect());
    Arc::new(Tenant {
        name: name.into(),
        tag: crate::policy::limit::place::tenant(name),
        providers,
        regions: None,
        tier: None,
        budget: None,
    })
}

pub(super) fn key(name: &str, models: Option<Vec<Glob>>) -> Arc<Key> {
    let tenant = tenant("default", None);
    Arc::new(Key {
        name: name.into(),
        tenant,
        models,
        upstream_models: None,
        expires: None,
        budget: None,
        limits: Vec::new(),
        places: OnceLock::new(),
    })
}

pub(super) fn key_of(tenant: Arc<Tenant>) -> Arc<Key> {
    let name = "of-tenant".into();
    Arc::new(Key {
        name,
        tenant,
        models: None,
        upstream_models: None,
        expires: None,
        budget: None,
        limits: Vec::new(),
        places: OnceLock::new(),
    })
}

/// A pool whose targets bear these names, tier by tier.
pub(super) fn pool(name: &str, tiers: &[&[&str]]) -> Arc<Pool> {
    let provider = Arc::new(Provider {
        name: "provider".into(),
        protocol: Protocol::OpenAi,
        base: "http://127.0.0.1:1/v1".parse().expect("a base URL"),
        credential: None,
        usage_in_stream: true,
        trace_context: false,
        enabled: true,
    });
    let mut index = 0;
    let mut target = |name: &str| {
        index += 1;
        let (name, provider) = (name.into(), Arc::clone(&provider));
        Arc::new(Target {
            index,
            name,
            provider,
            model: None,
            weight: 1,
            zone: None,
            region: None,
            price: None,
            limits: Vec::new(),
        })
    };
    let tiers = tiers.iter().map(|tier| tier.iter().map(|name| target(name)).collect()).collect();
    Arc::new(Pool {
        name: name.into(),
        tiers,
        strategy: Strategy::Weighted,
        timeouts: Timeouts::default(),
        attempts: 3,
        heartbeat: None,
    })
}

fn snapshot(pools: Vec<Arc<Pool>>, routes: Vec<Route>) -> Snapshot {
    Snapshot {
        revision: 1,
        checksum: "test".into(),
        providers: Vec::new(),
        targets: Vec::new(),
        pools,
        routes,
        limits: Vec::new(),
        keys: HashMap::default(),
        keys_required: false,
        anonymous: key("anonymous", None),
    }
}

pub(super) fn snapshot_with_routes(routes: &[(&str, &str)], pools: &[&str]) -> Snapshot {
    let pools: Vec<_> = pools.iter().map(|name| pool(name, &[&["t"]])).collect();
    let find = |name: &str| pools.iter().find(|pool| &*pool.name == name).map(Arc::clone);
    let routes = routes.iter().map(|(glob, pool)| Route {
        name: (*glob).into(),
        model: Glob::new(glob),
        pool: find(pool).expect("a pool of the test"),
    });
    let routes = routes.collect();
    snapshot(pools, routes)
}

/// Keys as (name, what the client presents, expiry).
pub(super) fn snapshot_with_keys(keys: &[(&str, &str, Option<i64>)]) -> Snapshot {
    let mut snapshot = snapshot(Vec::new(), Vec::new());
    for (name, presented, expires) in keys {
        let plain = key(name, None);
        let key = Key {
            name: (*name).into(),
            tenant: Arc::clone(&plain.tenant),
            models: None,
            upstream_models: None,
            expires: *expires,
            budget: None,
            limits: Vec::new(),
            places: OnceLock::new(),
        };
        snapshot.keys_required = true;
        snapshot.keys.insert(KeyHash::of(presented.as_bytes()), Arc::new(key));
    }
    snapshot
}
