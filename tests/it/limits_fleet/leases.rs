//! Permits are leases: whatever ends a request, its permits come back, and none is ever below 0.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::rig::{LEASE, Rig, of};
use crate::judge::dice::Dice;
use crate::judge::history::{Algorithm, Fault, History, Metric, Patience, What};
use crate::support::crowd::{Crowd, Wish};
use crate::support::eventually::eventually;
use crate::support::process::spawn_fleet;
use crate::support::redis::Server;

/// Two equal targets, with permits of their own besides the tenant's.
fn document(crowd: &Crowd) -> String {
    let url = crowd.wall.base_url();
    format!(
        "providers: {{ w: {{ protocol: openai, base_url: \"{url}\", api_key: sk-wall }} }}
targets:
  t0: {{ provider: w, limits: [{{ name: t0-slots, metric: concurrency, limit: 400 }}] }}
  t1: {{ provider: w, limits: [{{ name: t1-slots, metric: concurrency, limit: 400 }}] }}
pools: {{ p: {{ tiers: [[t0, t1]], retry: {{ attempts: 2 }}, timeouts: {{ answer: 700ms }} }} }}
tenants: {{ a: {{}} }}
keys: [{{ name: a, tenant: a, key: \"sk-a\" }}]
limits: [{{ name: slots, scope: {{ tenant: a }}, metric: concurrency, limit: 60, degraded: fail_closed }}]
"
    )
}

/// One of everything that can happen to a request.
fn wish(dice: &mut Dice) -> Wish {
    let hold = Duration::from_millis(dice.below(120));
    let wish = Wish { stream: dice.once_in(2), ..Wish::of("sk-a").held(hold) };
    match dice.below(12) {
        0 | 1 => wish.left_after(Duration::from_millis(dice.below(150))),
        2 => Wish { status: 500, ..wish },
        3 => Wish { status: 429, ..wish },
        4 => Wish { stream: false, ..wish.held(Duration::from_secs(2)) },
        _ => wish,
    }
}

// T4
#[tokio::test]
async fn every_permit_comes_back_whatever_ends_its_request() {
    let crowd = Crowd::new();
    let server = Server::start();
    let url = server.url();
    let env = [
        ("FLOTILLA_REDIS_URL", url.as_str()),
        ("FLOTILLA_REDIS_DEADLINE", "500ms"),
        ("FLOTILLA_LEASE_TTL", "2s"),
        ("FLOTILLA_TICK", "100ms"),
        ("FLOTILLA_NODE_TTL", "1s"),
        ("FLOTILLA_WORKERS", "1"),
    ];
    let mut fleet = spawn_fleet(2, 2, &document(&crowd), &env);
    crowd.meets(&fleet.addresses());

    // Until the third part is through, there are four nodes; then one is killed.
    let begun = Instant::now();
    let client = |number: u64, asks: u64, nodes: usize| {
        let crowd = &crowd;
        async move {
            let mut dice = Dice::new(number);
            let mut targets: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..asks {
                let node = usize::try_from(dice.below(nodes as u64)).expect("a small number");
                let Some(answer) = crowd.ask(node, wish(&mut dice)).await else { continue };
                if answer.head.status == 200
                    && let Some(target) = answer.head.header("x-flotilla-target")
                {
                    *targets.entry(target.to_owned()).or_default() += 1;
                }
            }
            targets
        }
    };
    let victim = fleet.processes.pop().expect("there are two");
    let mut kill = None;
    let (first, ()) = tokio::join!(join_all((0..40).map(|number| client(number, 12, 4))), async {
        eventually(Duration::from_secs(60), || crowd.wall.count() > 200).await;
        let from = crowd.now();
        victim.signal("KILL");
        kill = Some((from, crowd.now()));
    });
    let second = join_all((40..80).map(|number| client(number, 12, 3))).await;
    let ended = Instant::now();
    let rig = Rig { crowd, fleet, server };
    eventually(LEASE + Duration::from_secs(3), || rig.permits() == 0).await;
    let took = ended.elapsed();
    assert!(took < LEASE + Duration::from_millis(500), "permits were held for {took:?}");

    let (from, _) = kill.expect("it was killed");
    let limits = vec![of("slots", &[], Metric::Concurrency, Algorithm::Permits, 60)];
    let mut history = rig.history(limits).await;
    history.ending.as_mut().expect("it is over").rows = None;
    let faults = vec![Fault { what: What::NodeKilled(3), from, until: u64::MAX / 4 }];
    let patience = Patience { release: 1_500_000, ..history.patience };
    let history = History { faults, patience, ..history };
    let report = crate::judge::check::check(&history);
    report.assert_good(&history);
    assert!(report.measured[0].fullest > 0.5, "the limit was felt\n{report}");

    let mut targets: BTreeMap<String, usize> = BTreeMap::new();
    for (target, count) in first.into_iter().chain(second).flatten() {
        *targets.entry(target).or_default() += count;
    }
    let (all, least) = (targets.values().sum::<usize>(), targets.values().min().copied());
    assert!(all > 200 && targets.len() == 2, "{targets:?} after {:?}", begun.elapsed());
    let least = least.unwrap_or(0) as f64;
    // Four times the spread of a fair coin, and what is promised besides.
    let fair = all as f64 / 2.0;
    let spread = (fair * 0.1).max(2.0 * (all as f64).sqrt());
    assert!(least > fair - spread, "load is not spread: {targets:?}");
}
