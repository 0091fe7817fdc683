//! What limits cost: commands to Redis for each request, and connections; and what a Redis that is
//! full costs them.

use std::time::Duration;

use futures_util::future::join_all;

use super::rig::{Rig, document};
use crate::support::crowd::Wish;
use crate::support::eventually::eventually;
use crate::support::node::metric;
use crate::support::redis::Server;
use crate::support::wall::DEADLINE;

/// Seldom enough that ticks do not count.
const SLOW: [(&str, &str); 2] = [("FLOTILLA_TICK", "1s"), ("FLOTILLA_NODE_TTL", "10s")];

const SIX: &str = r#"tenants: { a: { budget: { limit: "1000 USD", period: month } }, b: {} }
keys:
  - { name: a, tenant: a, key: "sk-a" }
  - { name: b, tenant: b, key: "sk-b" }
limits:
  - { name: a1, scope: { tenant: a }, metric: requests, limit: 100000, window: 1m }
  - { name: a2, scope: key, metric: tokens, limit: 100000000, window: 1m }
  - { name: a3, scope: { tenant: a, per: [user] }, metric: output_tokens, limit: 100000000, window: 1h }
  - { name: a4, scope: { tenant: a, per: [model] }, metric: cost, limit: "1000 USD", window: 1h }
  - { name: a5, scope: { tenant: a }, metric: concurrency, limit: 1000 }
"#;

/// Scripts that Redis ran so far.
fn scripts(server: &Server) -> u64 {
    let info: String = server.ask(&["INFO", "commandstats"]);
    let calls = info.lines().filter_map(|line| {
        let line = line.strip_prefix("cmdstat_eval")?;
        line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}

// T10
#[tokio::test]
async fn a_request_with_six_limits_is_one_script_and_its_settling_another() {
    let rig = Rig::start_with(1, 0, SIX, &SLOW, Server::start());
    for _ in 0..3 {
        rig.crowd.ask(0, Wish::of("sk-a")).await;
    }
    rig.rests().await;

    // One after the other, so that nothing can be joined: admit, release, settle.
    let before = scripts(&rig.server);
    for _ in 0..20 {
        let answer = rig.crowd.ask(0, Wish::of("sk-a")).await.expect("an answer");
        assert_eq!(answer.head.status, 200);
    }
    rig.rests().await;
    let cold = scripts(&rig.server) - before;
    assert!((20..=20 * 3 + 10).contains(&cold), "{cold} scripts for 20 requests");

    // Many at once: the settling of them is joined.
    let before = scripts(&rig.server);
    for _ in 0..5 {
        join_all((0..100).map(|_| rig.crowd.ask(0, Wish::of("sk-b")))).await;
    }
    rig.rests().await;
    let hot = scripts(&rig.server) - before;
    assert!((500..=750).contains(&hot), "{hot} scripts for 500 requests");
}

// T10
#[tokio::test]
async fn connections_stay_the_same_over_reloads() {
    let rig = Rig::start_with(1, 0, SIX, &SLOW, Server::start());
    rig.crowd.ask(0, Wish::of("sk-a")).await;
    let connections = || {
        let list: String = rig.server.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
        let mut ids: Vec<_> = list.lines().filter(|line| !line.contains("cmd=client")).collect();
        ids.iter_mut().for_each(|line| *line = line.split(' ').next().unwrap_or_default());
        ids.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = connections();
    assert!(!before.is_empty());
    let admin = rig.admins()[0];
    for round in 0..5 {
        let rest = SIX.replace("limit: 100000,", &format!("limit: {},", 100_001 + round));
        let revision = metric(admin, "flotilla_config_revision");
        let text = document(&rig.crowd, &rest);
        std::fs::write(&rig.fleet.document, text).expect("the document is written");
        eventually(DEADLINE, || metric(admin, "flotilla_config_revision") > revision).await;
        rig.crowd.ask(0, Wish::of("sk-a")).await;
    }
    assert_eq!(connections(), before);
}

// T10
#[tokio::test]
async fn a_full_redis_loses_no_count() {
    const LIMITS: &str = r#"tenants: { a: {} }
keys: [{ name: a, tenant: a, key: "sk-a" }]
limits: [{ name: rpm, scope: { tenant: a }, metric: requests, limit: 10, window: 1h, degraded: fail_closed }]
"#;
    let rig = Rig::start(2, 0, LIMITS);
    for _ in 0..6 {
        let answer = rig.crowd.ask(rig.crowd.any(), Wish::of("sk-a")).await.expect("an answer");
        assert_eq!(answer.head.status, 200);
    }
    let () = rig.server.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let refused = rig.crowd.ask(0, Wish::of("sk-a")).await.expect("an answer");
    assert_eq!((refused.head.status, refused.code()), (503, "store_unavailable".into()));
    let () = rig.server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut served = 0;
    let begun = std::time::Instant::now();
    loop {
        let answer = rig.crowd.ask(rig.crowd.any(), Wish::of("sk-a")).await.expect("an answer");
        match (answer.head.status, answer.code().as_str()) {
            (200, _) => served += 1,
            (429, "rate_limited") => break,
            other => assert_eq!(other, (503, "store_unavailable")),
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "{served} served, and no end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(served, 4, "six were counted before");
}
