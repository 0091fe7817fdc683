//! Limits, budgets and prices, from the document to the snapshot.

use std::sync::Arc;

use flotilla::domain::KeyHash;
use flotilla::policy::limit::{Algorithm, Degraded, LimitId, Metric};
use flotilla::snapshot::{Dimension, Key, Limit, Period, Snapshot};

use super::{ONE_POOL, compiled, faults};

fn snapshot(rest: &str) -> Snapshot {
    compiled(&format!("{ONE_POOL}{rest}"), &[("OPENAI_API_KEY", "x")]).0
}

fn limit<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Limit {
    snapshot.limits.iter().find(|limit| &*limit.name == name).expect("there is one")
}

fn key<'a>(snapshot: &'a Snapshot, text: &str) -> &'a Key {
    snapshot.keys.get(&KeyHash::of(text.as_bytes())).expect("there is one")
}

fn names(limits: &[Arc<Limit>]) -> Vec<&str> {
    limits.iter().map(|limit| &*limit.name).collect()
}

#[test]
fn the_reference_s_limits_are_compiled() {
    let text = include_str!("../../../examples/flotilla.yaml");
    let (snapshot, warnings) = compiled(text, &[("ACME_KEY", "a"), ("OPENAI_API_KEY", "b")]);
    assert!(warnings.is_empty(), "{warnings:?}");
    let all = [
        "per-key-rpm",
        "per-user-and-model",
        "acme-slots",
        "premium-spend",
        "local/concurrency",
        "own-tokens",
    ];
    assert_eq!(names(&snapshot.limits), all);

    let rpm = limit(&snapshot, "per-key-rpm");
    assert_eq!((rpm.id, rpm.limit, rpm.hard), (LimitId::of("per-key-rpm"), 600, false));
    assert_eq!((rpm.metric, rpm.degraded), (Metric::Requests, Degraded::LocalShare));
    assert_eq!(rpm.algorithm, Algorithm::Window { slot_ms: 1000, slots: 60 });
    assert_eq!((&*rpm.spread, rpm.narrow.len()), (&[Dimension::Key][..], 0));
    let user = limit(&snapshot, "per-user-and-model");
    assert_eq!(user.spread, [Dimension::Tenant, Dimension::User, Dimension::Model]);
    assert!(user.hard && user.metric == Metric::OutputTokens);
    let slots = limit(&snapshot, "acme-slots");
    assert_eq!((slots.algorithm, slots.degraded), (Algorithm::Permits, Degraded::FailClosed));
    assert_eq!(slots.narrow, [(Dimension::Tenant, "acme".into())]);
    let spend = limit(&snapshot, "premium-spend");
    assert_eq!((spend.metric, spend.limit), (Metric::Cost, 5_000_000));
    assert_eq!((&*spend.spread, spend.narrow.len()), (&[Dimension::Key][..], 1));

    let acme = key(&snapshot, "a");
    assert_eq!(names(&acme.limits), &all[..4]);
    assert_eq!(acme.tenant.tier.as_deref(), Some("premium"));
    let budget = acme.tenant.budget.as_ref().expect("there is one");
    assert_eq!(budget.id, LimitId::of("budget/tenant/acme"));
    assert_eq!((budget.limit, budget.soft), (100_000_000, Some(80_000_000)));
    assert_eq!((budget.period, budget.zone.name()), (Period::Month, "Europe/Vienna"));
    // 2026-02-28T23:00:00Z is the first of March in Vienna.
    assert_eq!(budget.period_at(1_772_319_600_000), (1_772_319_600_000, 1_774_994_400_000));
    let lab = snapshot.keys.values().find(|key| &*key.name == "lab-notebook").expect("it is there");
    assert_eq!(names(&lab.limits), &all[..2]);
    let budget = lab.budget.as_ref().expect("there is one");
    assert_eq!((budget.limit, budget.soft, budget.zone.name()), (500_000, None, "UTC"));
    assert_eq!(budget.id, LimitId::of("budget/key/lab-notebook"));

    let target = |name: &str| snapshot.targets.iter().find(|t| &*t.name == name).expect("is there");
    let price = target("gpt-mini").price.expect("it has one");
    assert_eq!((price.input, price.output), (150_000, 600_000));
    assert_eq!(price.cost(1_000, 10), 156);
    assert_eq!(target("local").price.map(|price| price.input), Some(0));
    assert_eq!(names(&target("local").limits), &all[4..]);
    let own = limit(&snapshot, "own-tokens");
    assert_eq!(own.algorithm, Algorithm::Bucket { window_ms: 60_000, burst: 50_000 });
    assert_eq!(own.narrow, [(Dimension::Target, "local".into())]);
    assert!(own.spread.is_empty());
}

#[test]
fn a_key_has_the_limits_that_can_apply_to_it_in_the_documents_order() {
    let snapshot = snapshot(
        "
tenants: { acme: { tier: gold }, lab: { tier: gold }, default: {} }
keys:
  - { name: k1, tenant: acme, key: one }
  - { name: k2, tenant: lab, key: two }
  - { name: k3, key: three }
limits:
  - { name: key, scope: { key: k1 }, metric: requests, limit: 1, window: 1m }
  - { name: all, scope: key, metric: requests, limit: 1, window: 1m }
  - { name: gold, scope: { tier: gold, per: [key] }, metric: requests, limit: 1, window: 1m }
  - { name: lab-gold, scope: { tenant: lab, tier: gold }, metric: requests, limit: 1, window: 1m }
  - { name: target, scope: { target: gpt, per: [key] }, metric: requests, limit: 1, window: 1m }
  - { name: default, scope: { tenant: default }, metric: requests, limit: 1, window: 1m }
  - { name: k2-lab, scope: { key: k2, tenant: lab, tier: gold, pool: fast }, metric: tokens, limit: 1, window: 1m }
",
    );
    let of = |text| names(&key(&snapshot, text).limits);
    assert_eq!(of("one"), ["key", "all", "gold", "target"]);
    assert_eq!(of("two"), ["all", "gold", "lab-gold", "target", "k2-lab"]);
    assert_eq!(of("three"), ["all", "target", "default"]);
    assert_eq!(names(&snapshot.anonymous.limits), ["all", "target", "default"]);
}

#[test]
fn without_keys_everybody_is_limited_as_the_tenant_default() {
    let snapshot = snapshot(
        "
tenants: { default: { budget: { limit: 1 USD, period: week } } }
limits:
  - { name: all, scope: [ip], metric: requests, limit: 1, window: 1m }
  - { name: own, scope: { tenant: default }, metric: concurrency, limit: 0 }
",
    );
    assert_eq!(names(&snapshot.anonymous.limits), ["all", "own"]);
    let budget = snapshot.anonymous.tenant.budget.as_ref().expect("there is one");
    assert_eq!((budget.period, budget.id), (Period::Week, LimitId::of("budget/tenant/default")));
    // Monday 1970-01-05 is the first whole week of Unix time.
    assert_eq!(budget.period_at(345_600_000), (345_600_000, 950_400_000));
}

#[test]
fn a_target_without_a_price_is_warned_of_where_cost_is_counted() {
    let warning = "targets.gpt: has no price, so budgets and limits of cost do not count it";
    let warned = |rest: &str| {
        let (_, warnings) = compiled(&format!("{ONE_POOL}{rest}"), &[("OPENAI_API_KEY", "x")]);
        warnings.iter().any(|found| found.starts_with(warning))
    };
    let limit = |metric, limit| {
        format!("limits: [{{ name: a, scope: key, metric: {metric}, limit: {limit}, window: 1m }}]")
    };
    assert!(!warned("") && !warned(&limit("tokens", "5")) && warned(&limit("cost", "5 USD")));
    assert!(warned("tenants: { acme: { budget: { limit: 1 USD, period: day } } }"));
    assert!(warned("keys: [{ name: a, key: abc, budget: { limit: 1 USD, period: day } }]"));
}

#[test]
fn the_order_of_dimensions_changes_nothing() {
    let scope = |scope: &str| {
        let snapshot = snapshot(&format!(
            "limits: [{{ name: a, scope: {scope}, metric: requests, limit: 1, window: 1m }}]\n"
        ));
        format!("{:?}", limit(&snapshot, "a"))
    };
    assert_eq!(scope("[model, key]"), scope("[key, model]"));
    assert_eq!(scope("key"), scope("[key]"));
    assert_eq!(
        scope("{ pool: fast, ip: '::ffff:10.0.0.1' }"),
        scope("{ ip: 10.0.0.1, pool: fast }")
    );
    assert_eq!(scope("{ per: [user, key] }"), scope("[key, user]"));
    assert_ne!(scope("fleet"), scope("node"));
}

#[test]
fn names_of_limits_are_unique_across_the_document() {
    let text = format!(
        "{ONE_POOL}
limits:
  - {{ name: gpt/tokens/1m, scope: key, metric: tokens, limit: 1, window: 1m }}
  - {{ name: budget/tenant/default, scope: key, metric: tokens, limit: 1, window: 1m }}
tenants: {{ default: {{ budget: {{ limit: 1 USD, period: day }} }} }}
"
    )
    .replace("gpt: { provider: openai }", "gpt: { provider: openai, limits: [{ metric: tokens, limit: 1, window: 60s }, { name: own, metric: cost, limit: 1 USD, window: 1s }, { name: own, metric: cost, limit: 1 USD, window: 1h }] }");
    let found = faults(&text);
    for expected in [
        "targets.gpt.limits[0].name: `gpt/tokens/1m` is already the name of limits[0]",
        "targets.gpt.limits[2].name: `own` is already the name of targets.gpt.limits[1]",
        "tenants.default.budget.name: `budget/tenant/default` is already the name of limits[1]",
    ] {
        assert!(found.contains(expected), "{found}");
    }
    assert_eq!(found.lines().count(), 3, "{found}");
}

#[test]
fn two_names_that_would_be_counted_as_one_are_refused() {
    let (a, b) = ("limit-20569571", "limit-30751874");
    assert_eq!(LimitId::of(a), LimitId::of(b));
    let limit =
        |name| format!("{{ name: {name}, scope: key, metric: tokens, limit: 1, window: 1m }}");
    let found = faults(&format!("{ONE_POOL}limits: [{}, {}]\n", limit(a), limit(b)));
    let expected =
        format!("limits[1].name: `{b}` would be counted as `{a}` is; give it another name");
    assert!(found.contains(&expected), "{found}");
}

#[test]
fn more_limits_than_a_request_can_ask_are_refused() {
    let limits = |count: usize, scope: &str| {
        let one = |n| {
            format!("  - {{ name: l{n}, scope: {scope}, metric: tokens, limit: 1, window: 1m }}\n")
        };
        let limits: String = (0..count).map(one).collect();
        format!(
            "{ONE_POOL}keys: [{{ name: a, key: abc }}, {{ name: b, key: abcd }}]\nlimits:\n{limits}"
        )
    };
    let found = faults(&limits(129, "{ key: b }"));
    assert!(found.contains("keys[1]: 129 limits can apply to it") && found.lines().count() == 1);
    assert_eq!(faults(&limits(129, "user")).lines().count(), 3);
    assert_eq!(faults(&limits(128, "user")), "");
}

// A hundred thousand keys, each with a limit and a budget of its own, load in seconds.
#[test]
fn a_limit_for_each_of_many_keys_is_found_without_looking_at_all_of_them() {
    let mut text = format!("{ONE_POOL}keys:\n");
    let count = 20_000;
    for n in 0..count {
        text.push_str(&format!("  - {{ name: k{n}, key: key-{n} }}\n"));
    }
    text.push_str("limits:\n");
    for n in 0..count {
        let scope = format!("{{ key: k{n} }}");
        text.push_str(&format!(
            "  - {{ name: l{n}, scope: {scope}, metric: tokens, limit: 1, window: 1m }}\n"
        ));
    }
    let (snapshot, _) = compiled(&text, &[]);
    assert_eq!(names(&key(&snapshot, "key-19999").limits), ["l19999"]);
    assert!(snapshot.keys.values().all(|key| key.limits.len() == 1));
}
