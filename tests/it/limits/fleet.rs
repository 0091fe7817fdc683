//! Several nodes' stores over one Redis: limiters, reservations and ledgers as nodes have them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla::domain::{AttemptId, Random};
use flotilla::policy::limit::{
    Admit, Algorithm, Charge, Counts, Degraded, Holder, LimitId, Metric, Row, Rule,
};
use flotilla::store::connection::{self, Tls};
use flotilla::store::redis::Shape;
use flotilla::store::{Config, Denied, Limiter, Reservation, Store, Used};
use flotilla::telemetry::StoreMetrics;

use super::on_a_worker;
use crate::support::redis::{Kind, Server, prefix, shared};

const TAG: &str = "t:acme";
/// Short, so that renewals can be waited for.
const LEASE: Duration = Duration::from_millis(900);

/// A node's store. Of short deadlines where the test makes Redis silent.
fn node(url: &str, prefix: &str, deadline: Duration) -> Limiter {
    let url = flotilla::domain::Secret::new(url.to_owned());
    let config = Config {
        connection: connection::Config { url, tls: Tls::default(), deadline },
        shape: Shape {
            prefix: prefix.to_owned(),
            lease_ttl: LEASE,
            usage_ttl: Duration::from_secs(3_600),
        },
        incarnation: Random::new().next_u64(),
    };
    Limiter::new(&Store::redis(config, StoreMetrics::default()).expect("a good URL"))
}

fn patient() -> Duration {
    Duration::from_secs(5)
}

fn charge(metric: Metric, amount: u64, limit: u64) -> Charge {
    let algorithm = match metric {
        Metric::Concurrency => Algorithm::Permits,
        _ => Algorithm::Window { slot_ms: 60_000, slots: 60 },
    };
    let rule = Rule { id: LimitId([metric as u8 + b'a'; 8]), algorithm, limit };
    let (holder, degraded) = (Holder::Request, Degraded::FailClosed);
    Charge { scope: 0, rule, amount, holder, metric, degraded, hard: false }
}

fn admit(charges: Vec<Charge>) -> Admit {
    let id = AttemptId { request: Random::new().next_id(), attempt: 1 };
    let scopes = vec!["tenant".into()];
    Admit { tag: TAG.into(), id, scopes, charges, member: true, bill: None }
}

async fn take(limiter: &Limiter, charge: Charge) -> Result<Reservation, Denied> {
    limiter.admit(vec![admit(vec![charge])]).await
}

async fn used(limiter: &Limiter, charge: Charge) -> u64 {
    let asked = [("tenant".into(), charge.rule)];
    let standing = limiter.store().standing(&Arc::from(TAG), &asked).await;
    standing.expect("redis answers")[0].used
}

/// Waits until so much of a limit is used.
async fn until_used(limiter: &Limiter, charge: Charge, expected: u64) -> Duration {
    let start = Instant::now();
    while used(limiter, charge).await != expected {
        assert!(start.elapsed() < Duration::from_secs(5), "never {expected}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

// T1, in process: three nodes at once.
#[test]
fn nodes_admit_together_what_one_would() {
    on_a_worker(async {
        let (server, prefix) = (shared(Kind::Redis7), prefix());
        let nodes = [(); 3].map(|()| node(&server.url(), &prefix, patient()));
        let requests = charge(Metric::Requests, 1, 100);
        let all = nodes.iter().flat_map(|node| (0..60).map(move |_| take(node, requests)));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 100);
        let refused = all.iter().filter_map(|one| one.as_ref().err());
        assert!(refused.into_iter().all(|denied| matches!(denied, Denied::Refused { .. })));
        // One that was never sent gives its place to another node's.
        let mut admitted = all.into_iter().filter_map(Result::ok);
        admitted.next().expect("one of a hundred").cancel();
        until_used(&nodes[0], requests, 99).await;
        drop(take(&nodes[2], requests).await.expect("there is room for one"));
        take(&nodes[1], requests).await.expect_err("and no more");
    });
}

#[test]
fn what_one_node_gives_back_another_can_take_at_once() {
    on_a_worker(async {
        let (server, prefix) = (shared(Kind::Redis7), prefix());
        let (one, other) =
            (node(&server.url(), &prefix, patient()), node(&server.url(), &prefix, patient()));
        let (permit, tokens) = (charge(Metric::Concurrency, 1, 1), charge(Metric::Tokens, 80, 100));
        let mut held = one.admit(vec![admit(vec![permit, tokens])]).await.expect("it fits");
        let permits = held.take_permits();
        take(&other, permit).await.expect_err("it is held");
        let truth = Used { input_tokens: 10, output_tokens: 5, cost_micro_usd: 0 };
        held.settle_now(truth, None).await;
        // It was waited for.
        assert_eq!(used(&other, tokens).await, 15);
        take(&other, permit).await.expect_err("the request goes on");
        drop(permits);
        until_used(&other, permit, 0).await;
        drop(take(&other, permit).await.expect("it is free"));
    });
}

#[test]
fn leases_outlive_their_ttl_while_their_node_lives() {
    on_a_worker(async {
        let (server, prefix) = (shared(Kind::Redis7), prefix());
        let (one, other) =
            (node(&server.url(), &prefix, patient()), node(&server.url(), &prefix, patient()));
        let permit = charge(Metric::Concurrency, 1, 1);
        let held = take(&one, permit).await.expect("it fits");
        let until = Instant::now() + 2 * LEASE;
        while Instant::now() < until {
            take(&other, permit).await.expect_err("it is renewed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A node that dies: nothing is told any more.
        std::mem::forget(held);
        assert_eq!(one.store().close(Duration::from_secs(5)).await, 0);
        let took = until_used(&other, permit, 0).await;
        assert!(took <= LEASE + Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn all_usage_is_there_when_a_node_is_closed() {
    on_a_worker(async {
        let (server, prefix) = (shared(Kind::Redis7), prefix());
        let (one, other) =
            (node(&server.url(), &prefix, patient()), node(&server.url(), &prefix, patient()));
        let row = Row { key: "a".into(), ..Row::default() };
        let counts = Counts { requests: 1, input_tokens: 7, ..Counts::default() };
        let tokens = charge(Metric::Tokens, 10, 10_000);
        for number in 0..50 {
            let node = if number % 2 == 0 { &one } else { &other };
            let held = take(node, tokens).await.expect("it fits");
            held.settle(Used { input_tokens: 7, ..Used::default() }, Some((row.clone(), counts)));
            node.record(TAG.into(), row.clone(), counts);
        }
        for node in [&one, &other] {
            assert_eq!(node.store().close(Duration::from_secs(5)).await, 0);
        }
        let hour = one.store().now_ms() / 3_600_000;
        let usage = one.store().usage(&Arc::from(TAG), hour - 1..hour + 1).await;
        let mut sum = Counts::default();
        usage.expect("redis answers").iter().for_each(|(_, _, counts)| sum.add(counts));
        assert_eq!((sum.requests, sum.input_tokens), (100, 700));
        assert_eq!(used(&one, tokens).await, 350);
    });
}

// T8, its part of a closed limit: bounded waits, nothing counted twice.
#[test]
fn a_silent_redis_denies_what_is_to_be_closed_and_hears_the_truth_later() {
    on_a_worker(async {
        let server = Server::start();
        let limiter = node(&server.url(), &prefix(), Duration::from_millis(200));
        let closed = charge(Metric::Tokens, 10, 1_000);
        let open = Charge { degraded: Degraded::FailOpen, ..charge(Metric::Requests, 1, 1_000) };
        let held = loop {
            // Until it is connected, too, there is no answer.
            match limiter.admit(vec![admit(vec![open, closed])]).await {
                Ok(held) => break held,
                Err(denied) => assert_eq!(denied, Denied::Unavailable { admit: 0, charge: 1 }),
            }
        };
        server.pause();
        let start = Instant::now();
        let denied = take(&limiter, closed).await.expect_err("nobody answers");
        assert_eq!(denied, Denied::Unavailable { admit: 0, charge: 0 });
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let elsewhere = take(&limiter, open).await.expect("it is to be open");
        held.settle(Used { input_tokens: 30, ..Used::default() }, None);
        elsewhere.settle(Used::default(), None);
        // Some tries to tell it are lost.
        tokio::time::sleep(Duration::from_millis(600)).await;
        server.resume();
        until_used(&limiter, open, 2).await;
        until_used(&limiter, closed, 30).await;
        assert_eq!(limiter.store().close(Duration::from_secs(5)).await, 0);
        assert_eq!((used(&limiter, open).await, used(&limiter, closed).await), (2, 30));
    });
}
