//! A Redis that is stopped, killed or slow: what nodes admit by their rules, and that every count
//! is exact once it is back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla::domain::{AttemptId, Random};
use flotilla::policy::limit::share::{self, Bound};
use flotilla::policy::limit::{Admit, Algorithm, Charge, Degraded, Holder, LimitId, Metric, Rule};
use flotilla::store::connection::{self, Tls};
use flotilla::store::membership::Membership;
use flotilla::store::redis::Shape;
use flotilla::store::{Config, Denied, Limiter, Reservation, Store, Topped, Used};
use flotilla::telemetry::Metrics;

use super::on_a_worker;
use crate::support::chaos::ChaosProxy;
use crate::support::redis::Server;

const TAG: &str = "t:acme";
const LEASE: Duration = Duration::from_millis(1_500);
const HOUR: Algorithm = Algorithm::Window { slot_ms: 60_000, slots: 60 };
const SOON: Duration = Duration::from_secs(5);

struct Node {
    limiter: Limiter,
    metrics: Metrics,
}

impl Node {
    fn start(server: &Server) -> Self {
        Self::at(&server.url())
    }

    fn at(url: &str) -> Self {
        let url = flotilla::domain::Secret::new(url.to_owned());
        let deadline = Duration::from_millis(50);
        let incarnation = Random::new().next_u64();
        let membership = Arc::new(Membership::new(incarnation, Duration::from_secs(10)));
        membership.set_may_touch(true);
        let config = Config {
            connection: connection::Config { url, tls: Tls::default(), deadline },
            shape: Shape {
                prefix: "d".to_owned(),
                lease_ttl: LEASE,
                usage_ttl: Duration::from_secs(3_600),
            },
            incarnation,
            membership: Some(Arc::clone(&membership)),
        };
        let metrics = Metrics::new();
        let store = Store::redis(config, metrics.store()).expect("a good URL");
        Self { limiter: Limiter::new(&store), metrics }
    }

    /// As a tick would tell it.
    fn is_one_of(&self, live: u64, rank: u32, server: &Server) {
        let membership = self.limiter.store().membership().expect("it has a place");
        membership.ticked(live, Some(rank), server.now_ms());
    }

    fn metric(&self, start: &str) -> f64 {
        let text = self.metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    async fn take(&self, charge: Charge) -> Result<Reservation, Denied> {
        self.limiter.admit(vec![admit(vec![charge])]).await
    }

    /// Waits until Redis answers this node.
    async fn connected(&self) {
        let probe = charge('p', Metric::Tokens, Degraded::FailClosed, 1_000_000);
        let start = Instant::now();
        while let Err(denied) = self.take(probe).await.map(Reservation::cancel) {
            assert!(matches!(denied, Denied::Unavailable { .. }), "{denied:?}");
            assert!(start.elapsed() < SOON, "not back within 5 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn used(&self, charge: Charge) -> u64 {
        let asked = [("tenant".into(), charge.rule)];
        let standing = self.limiter.store().standing(&Arc::from(TAG), &asked).await;
        standing.map_or(u64::MAX, |standing| standing[0].used)
    }

    async fn until_used(&self, charge: Charge, expected: u64) {
        let start = Instant::now();
        loop {
            let used = self.used(charge).await;
            if used == expected {
                return;
            }
            assert!(start.elapsed() < SOON, "{used}, never {expected}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn close(&self) {
        assert_eq!(self.limiter.store().close(SOON).await, 0);
    }
}

fn charge(name: char, metric: Metric, degraded: Degraded, limit: u64) -> Charge {
    let algorithm = if metric == Metric::Concurrency { Algorithm::Permits } else { HOUR };
    let name = u8::try_from(name).expect("ASCII");
    let rule = Rule { id: LimitId([name; 8]), algorithm, limit };
    Charge { scope: 0, rule, amount: 1, holder: Holder::Request, metric, degraded, hard: false }
}

fn admit(charges: Vec<Charge>) -> Admit {
    let id = AttemptId { request: Random::new().next_id(), attempt: 1 };
    let member = charges.iter().any(|charge| charge.metric != Metric::Requests);
    Admit { tag: TAG.into(), id, scopes: vec!["tenant".into()], charges, member, bill: None }
}

/// Asks until it is refused; how many were admitted.
async fn drain(node: &Node, charge: Charge) -> u64 {
    for admitted in 0..10_000 {
        match node.take(charge).await {
            Ok(held) => held.settle(Used { input_tokens: 1, ..Used::default() }, None),
            Err(denied) => {
                assert!(matches!(denied, Denied::Refused { .. }), "{denied:?}");
                return admitted;
            }
        }
    }
    10_000
}

// T8: the bound of each policy, measured on a fleet whose Redis hangs, and the count afterwards.
#[test]
fn a_fleet_without_redis_admits_its_shares_and_all_of_it_is_charged_later() {
    on_a_worker(async {
        let server = Server::start();
        let nodes = [(); 3].map(|()| Node::start(&server));
        for (rank, node) in (0..3).zip(&nodes) {
            node.connected().await;
            node.is_one_of(3, rank, &server);
        }
        let shared = charge('s', Metric::Tokens, Degraded::LocalShare, 100);
        let open = charge('o', Metric::Requests, Degraded::FailOpen, 5);
        let closed = charge('c', Metric::Tokens, Degraded::FailClosed, 100);
        let day =
            flotilla::policy::limit::Algorithm::Budget { start_ms: 0, end_ms: u64::MAX >> 17 };
        let mut budget = charge('b', Metric::Cost, Degraded::LocalShare, 60_000);
        (budget.rule.algorithm, budget.amount) = (day, 10);
        for _ in 0..10 {
            let held = nodes[0].take(shared).await.expect("Redis admits it");
            held.settle(Used { input_tokens: 1, ..Used::default() }, None);
        }
        server.pause();
        let mut sums = [0; 3];
        for node in &nodes {
            sums[0] += drain(node, shared).await;
            for _ in 0..30 {
                node.take(open).await.expect("it is open").settle(Used::default(), None);
                sums[1] += 1;
            }
            node.take(closed).await.expect_err("it is closed");
            // Costs twice its estimate: the credit is signed, and refuses once it is spent.
            while let Ok(held) = node.take(budget).await {
                held.settle(Used { cost_micro_usd: 20, ..Used::default() }, None);
                sums[2] += 20;
            }
            assert!(
                node.metric("flotilla_limit_degraded_admissions_total{policy=\"local_share\"}")
                    > 0.0
            );
            assert!(node.metric("flotilla_degraded{function=\"limits\"}") > 0.0);
        }
        let stated = |charge: Charge| share::bound(charge.degraded, &charge.rule, 3);
        assert_eq!((stated(shared), sums[0]), (Bound::AtMost(99), 99));
        assert_eq!((stated(open), sums[1]), (Bound::Unbounded, 90));
        assert_eq!((stated(budget), stated(closed)), (Bound::AtMost(600), Bound::AtMost(0)));
        // 200 for each node, and what the last one cost above its estimate.
        assert_eq!(sums[2], 600);
        server.resume();
        let back = Instant::now();
        for node in &nodes {
            node.connected().await;
        }
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        nodes[0].until_used(shared, 109).await;
        nodes[0].until_used(open, 90).await;
        nodes[0].until_used(budget, 600).await;
        nodes[1].take(shared).await.expect_err("it is over by now");
        for node in &nodes {
            node.close().await;
        }
        assert_eq!(nodes[0].used(closed).await, 0);
        assert_eq!(nodes[0].used(shared).await, 109);
    });
}

/// Load while `hurt` and `heal` take turns: how long requests waited, how soon all was well again,
/// and whether every count is exact at the end.
async fn storm(url: &str, charges: &[Charge], hurt: impl Fn(), heal: impl Fn()) {
    let node = Rc::new(Node::at(url));
    node.connected().await;
    let (stop, count) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let waits = Rc::new(RefCell::new(Vec::new()));
    let clients = (0..16).map(|_| {
        let (node, stop, count) = (Rc::clone(&node), Rc::clone(&stop), Rc::clone(&count));
        let (waits, charges) = (Rc::clone(&waits), charges.to_vec());
        tokio::task::spawn_local(async move {
            while !stop.get() {
                let start = Instant::now();
                let held = node.limiter.admit(vec![admit(charges.clone())]).await;
                waits.borrow_mut().push((start, start.elapsed()));
                let held = held.expect("there is room");
                tokio::time::sleep(Duration::from_millis(2)).await;
                count.set(count.get() + 1);
                held.settle(Used { input_tokens: 3, ..Used::default() }, None);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    // How late this thread was at worst: on a busy machine that is no delay of ours.
    let (stall, watched) = (Rc::new(Cell::new(Duration::ZERO)), Rc::clone(&stop));
    let latest = Rc::clone(&stall);
    let watch = tokio::task::spawn_local(async move {
        let brief = Duration::from_millis(5);
        while !watched.get() {
            let start = Instant::now();
            tokio::time::sleep(brief).await;
            latest.set(latest.get().max(start.elapsed().saturating_sub(brief)));
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        hurt();
        let opened = Instant::now() + Duration::from_millis(250);
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        // It grows with what is in flight, not with requests.
        let queued = node.metric("flotilla_ledger_queued");
        assert!(queued < 300.0, "{queued} of {}", count.get());
        heal();
        let (waits, stall) = (waits.take(), stall.take());
        let later = waits.iter().filter(|(start, _)| *start > opened).map(|(_, wait)| *wait);
        let slow = later.max().expect("requests went on");
        assert!(slow <= Duration::from_millis(100) + stall, "{slow:?}, stalled {stall:?}");
        let back = Instant::now();
        node.connected().await;
        assert!(back.elapsed() < SOON);
    }
    stop.set(true);
    for client in clients {
        client.await.expect("it did not panic");
    }
    watch.await.expect("it did not panic");
    let count = count.get();
    assert!(count > 500, "{count}");
    assert!(node.metric("flotilla_limit_degraded_admissions_total") > 100.0);
    let expected = |charge: &Charge| match charge.metric {
        Metric::Concurrency => 0,
        Metric::Requests => count,
        _ => count * 3,
    };
    for charge in charges {
        node.until_used(*charge, expected(charge)).await;
    }
    node.close().await;
    // Nothing comes after it.
    for charge in charges {
        assert_eq!(node.used(*charge).await, expected(charge), "{:?}", charge.metric);
    }
}

fn requests() -> Charge {
    charge('r', Metric::Requests, Degraded::LocalShare, 1 << 30)
}

fn all() -> [Charge; 3] {
    let tokens = charge('t', Metric::Tokens, Degraded::LocalShare, 1 << 30);
    let permit = charge('q', Metric::Concurrency, Degraded::LocalShare, 1 << 20);
    [Charge { amount: 5, ..tokens }, requests(), permit]
}

// T8: SIGSTOP under load, again and again.
#[test]
fn redis_that_hangs_under_load_delays_nobody_and_counts_nothing_twice() {
    on_a_worker(async {
        let server = Server::start();
        storm(&server.url(), &all(), || server.pause(), || server.resume()).await;
    });
}

#[test]
fn requests_that_leave_no_member_are_counted_once_though_redis_hangs() {
    on_a_worker(async {
        let server = Server::start();
        storm(&server.url(), &[requests()], || server.pause(), || server.resume()).await;
    });
}

// T8: +200 ms.
#[test]
fn redis_that_is_slow_delays_nobody_and_counts_nothing_twice() {
    on_a_worker(async {
        let server = Server::start();
        let proxy = ChaosProxy::start(([127, 0, 0, 1], server.port).into());
        let url = format!("redis://{}", proxy.addr());
        let slow = || proxy.delay(Duration::from_millis(200));
        storm(&url, &all(), slow, || proxy.pass()).await;
    });
}

// T8: packets that are lost.
#[test]
fn redis_whose_answers_are_lost_delays_nobody_and_counts_nothing_twice() {
    on_a_worker(async {
        let server = Server::start();
        let proxy = ChaosProxy::start(([127, 0, 0, 1], server.port).into());
        let url = format!("redis://{}", proxy.addr());
        let mend = || {
            proxy.pass();
            proxy.reset();
        };
        storm(&url, &all(), || proxy.half_open(), mend).await;
    });
}

// T8: leases are registered before anything new is given.
#[test]
fn permits_that_were_given_without_redis_are_registered_before_new_ones_are_asked_for() {
    on_a_worker(async {
        let mut server = Server::start();
        let (one, other) = (Node::start(&server), Node::start(&server));
        one.connected().await;
        other.connected().await;
        one.is_one_of(2, 0, &server);
        other.is_one_of(2, 1, &server);
        let permit = charge('p', Metric::Concurrency, Degraded::LocalShare, 4);
        let early = one.take(permit).await.expect("Redis gives it");
        server.kill();
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(one.take(permit).await.expect("its share"));
        }
        assert!(matches!(one.take(permit).await, Err(Denied::Refused { .. })), "its share is 2");
        tokio::time::sleep(Duration::from_millis(300)).await;
        // It has lost all its data.
        server.restart();
        one.until_used(permit, 3).await;
        other.connected().await;
        held.push(other.take(permit).await.expect("the fourth"));
        other.take(permit).await.expect_err("a fifth");
        drop(held);
        drop(early);
        one.until_used(permit, 0).await;
        // The twin has its own back, too.
        server.kill();
        let again = [one.take(permit).await, one.take(permit).await];
        assert!(again.iter().all(Result::is_ok), "{again:?}");
    });
}

// T8: a stream that outruns its reservation while Redis is away.
#[test]
fn a_stream_goes_on_within_this_nodes_share() {
    on_a_worker(async {
        let server = Server::start();
        let node = Node::start(&server);
        node.connected().await;
        let tokens = Charge {
            hard: true,
            amount: 10,
            ..charge('t', Metric::Tokens, Degraded::LocalShare, 90)
        };
        let more = Used { output_tokens: 30, ..Used::default() };
        let mut early = node.take(tokens).await.expect("Redis admits it");
        assert_eq!(early.top_up(more).await, Topped::Yes);
        server.pause();
        let mut late = node.take(tokens).await.expect("its share");
        assert_eq!(late.top_up(more).await, Topped::Yes);
        assert_eq!(early.top_up(more).await, Topped::Yes);
        assert_eq!(late.top_up(more).await, Topped::Refused { hard: true });
        early.settle(Used { output_tokens: 60, ..Used::default() }, None);
        // Of the 70 that were reserved in the share 20 and 25 were used.
        late.settle(Used { output_tokens: 25, ..Used::default() }, None);
        assert_eq!(drain(&node, Charge { amount: 1, ..tokens }).await, 45);
        server.resume();
        node.until_used(tokens, 60 + 25 + 45).await;
        node.close().await;
        assert_eq!(node.used(tokens).await, 60 + 25 + 45);
    });
}
