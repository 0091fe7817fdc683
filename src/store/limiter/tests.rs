use std::time::Duration;

use super::super::{Config, Permits, Topped, Used};
use super::*;
use crate::domain::{AttemptId, RequestId};
use crate::policy::limit::{Charge, Degraded, Holder, LimitId, Metric, Rule};
use crate::telemetry::Metrics;

const HOUR: Algorithm = Algorithm::Window { slot_ms: 60_000, slots: 60 };

fn rule(name: u8, algorithm: Algorithm, limit: u64) -> Rule {
    Rule { id: LimitId([name; 8]), algorithm, limit }
}

fn charge(metric: Metric, amount: u64, rule: Rule) -> Charge {
    let degraded = Degraded::LocalShare;
    Charge { scope: 0, rule, amount, holder: Holder::Request, metric, degraded, hard: false }
}

fn requests(limit: u64) -> Charge {
    charge(Metric::Requests, 1, rule(1, HOUR, limit))
}

fn tokens(amount: u64, limit: u64) -> Charge {
    charge(Metric::Tokens, amount, rule(2, HOUR, limit))
}

fn permit(holder: Holder) -> Charge {
    let name = if holder == Holder::Request { 3 } else { 4 };
    Charge { holder, ..charge(Metric::Concurrency, 1, rule(name, Algorithm::Permits, 1)) }
}

fn id(number: u8) -> AttemptId {
    AttemptId { request: RequestId::from_random([number; 16]), attempt: 1 }
}

fn admit(tag: &str, number: u8, charges: Vec<Charge>) -> Admit {
    let scopes = vec!["all".into()];
    Admit { tag: tag.into(), id: id(number), scopes, charges, member: true, bill: None }
}

fn node() -> (Metrics, Limiter) {
    let metrics = Metrics::new();
    let store = Store::standalone(metrics.store());
    (metrics, Limiter::new(&store))
}

async fn used(limiter: &Limiter, tag: &str, charge: Charge) -> u64 {
    let asked = [("all".into(), charge.rule)];
    limiter.store().standing(&tag.into(), &asked).await.expect("it is here")[0].used
}

fn tokens_used(input_tokens: u64, output_tokens: u64) -> Used {
    Used { input_tokens, output_tokens, cost_micro_usd: 0 }
}

#[tokio::test]
async fn what_is_settled_is_the_truth_by_metric() {
    let (metrics, limiter) = node();
    let money = charge(Metric::Cost, 500, rule(5, HOUR, 1_000));
    let input = charge(Metric::InputTokens, 50, rule(6, HOUR, 1_000));
    let output = charge(Metric::OutputTokens, 50, rule(7, HOUR, 1_000));
    let charges = vec![requests(10), tokens(100, 1_000), money, input, output];
    let reservation = limiter.admit(vec![admit("t:a", 1, charges)]).await.expect("it fits");
    assert_eq!(reservation.left(), [[9, 900, 500, 950, 950]]);
    assert!(metrics.render().contains("flotilla_limit_reservations 1"));
    let truth = Used { input_tokens: 40, output_tokens: 9, cost_micro_usd: 77 };
    let row = Row { key: "k".into(), ..Row::default() };
    let counts = Counts { requests: 1, ..Counts::default() };
    reservation.settle_now(truth, Some((row.clone(), counts))).await;
    let mut standing = Vec::new();
    for charge in [requests(10), tokens(0, 1), money, input, output] {
        standing.push(used(&limiter, "t:a", charge).await);
    }
    assert_eq!(standing, [1, 49, 77, 40, 9]);
    let usage = limiter.store().usage(&"t:a".into(), 0..u64::MAX).await.expect("it is here");
    assert_eq!(usage.len(), 1);
    assert_eq!((&usage[0].1, usage[0].2), (&row, counts));
    assert!(metrics.render().contains("flotilla_limit_reservations 0"));
}

#[tokio::test]
async fn a_tag_that_refuses_gives_back_what_the_others_took() {
    let (_metrics, limiter) = node();
    let first = limiter.admit(vec![admit("g:t", 1, vec![tokens(10, 10)])]).await.expect("it fits");
    let both = |number| {
        let charges = vec![requests(5), tokens(10, 100), permit(Holder::Request)];
        vec![admit("t:a", number, charges), admit("g:t", number, vec![tokens(1, 10)])]
    };
    let denied = limiter.admit(both(2)).await.expect_err("the target is full");
    assert!(
        matches!(denied, Denied::Refused { admit: 1, refusal: Refusal { charge: 0, .. } }),
        "{denied:?}"
    );
    assert_eq!(used(&limiter, "t:a", requests(5)).await, 0);
    assert_eq!(used(&limiter, "t:a", tokens(0, 1)).await, 0);
    assert_eq!(used(&limiter, "t:a", permit(Holder::Request)).await, 0);
    first.cancel();
    let admitted = limiter.admit(both(3)).await.expect("it fits now");
    assert_eq!(admitted.left(), [vec![4, 90, 0], vec![9]]);
}

#[tokio::test]
async fn of_two_refusals_the_one_that_lasts_longer_is_told() {
    let (_metrics, limiter) = node();
    let brief = Algorithm::Window { slot_ms: 10, slots: 10 };
    let brief = charge(Metric::Tokens, 1, rule(8, brief, 1));
    let full =
        |number| vec![admit("t:a", number, vec![brief]), admit("g:t", number, vec![tokens(1, 1)])];
    let held = limiter.admit(full(1)).await.expect("it fits");
    let denied = limiter.admit(full(2)).await.expect_err("both are full");
    assert!(matches!(denied, Denied::Refused { admit: 1, .. }), "{denied:?}");
    drop(held);
}

#[tokio::test]
async fn a_reservation_that_is_dropped_is_settled_as_reserved() {
    let (_metrics, limiter) = node();
    let charges = vec![tokens(10, 100), permit(Holder::Attempt)];
    let mut reservation = limiter.admit(vec![admit("t:a", 1, charges)]).await.expect("it fits");
    assert_eq!(reservation.top_up(tokens_used(0, 5)).await, Topped::Yes);
    assert_eq!(used(&limiter, "t:a", permit(Holder::Attempt)).await, 1);
    drop(reservation);
    assert_eq!(used(&limiter, "t:a", tokens(0, 100)).await, 15);
    assert_eq!(used(&limiter, "t:a", permit(Holder::Attempt)).await, 0);
}

#[tokio::test]
async fn permits_of_a_request_outlive_its_attempts() {
    let (_metrics, limiter) = node();
    let charges = || vec![permit(Holder::Request), tokens(10, 100), permit(Holder::Attempt)];
    let mut first = limiter.admit(vec![admit("t:a", 1, charges())]).await.expect("it fits");
    let held: Option<Permits> = first.take_permits();
    assert!(held.is_some() && first.take_permits().is_none());
    first.settle(tokens_used(1, 1), None);
    assert_eq!(used(&limiter, "t:a", permit(Holder::Request)).await, 1);
    assert_eq!(used(&limiter, "t:a", permit(Holder::Attempt)).await, 0);
    limiter.admit(vec![admit("t:a", 2, charges())]).await.expect_err("the request holds it");
    drop(held);
    let second = limiter.admit(vec![admit("t:a", 3, charges())]).await.expect("it is free");
    second.cancel();
    assert_eq!(used(&limiter, "t:a", permit(Holder::Request)).await, 0, "nobody took it");
    assert_eq!(used(&limiter, "t:a", tokens(0, 100)).await, 2);
}

#[tokio::test]
async fn a_stream_that_outruns_a_hard_limit_is_told_so() {
    let (_metrics, limiter) = node();
    let hard = Charge { hard: true, ..tokens(10, 20) };
    for (number, charge, expected) in [(1, tokens(10, 20), false), (2, hard, true)] {
        let one = limiter.admit(vec![admit("t:a", number, vec![charge])]).await;
        let mut one = one.expect("it fits");
        assert_eq!(one.top_up(tokens_used(0, 4)).await, Topped::Yes);
        let refused = Topped::Refused { hard: expected };
        assert_eq!(one.top_up(tokens_used(0, 7)).await, refused);
        assert_eq!(one.top_up(tokens_used(0, 6)).await, Topped::Yes, "the step was not used up");
        assert_eq!(used(&limiter, "t:a", charge).await, 20);
        one.settle(tokens_used(0, 0), None);
    }
}

#[tokio::test]
async fn a_limit_that_ends_no_stream_is_no_shelter_from_one_that_does() {
    let (_, limiter) = node();
    let soft = tokens(50, 100);
    let hard = Charge { hard: true, rule: rule(6, HOUR, 140), ..soft };
    let mut one = limiter.admit(vec![admit("t:a", 1, vec![soft, hard])]).await.expect("room");
    assert_eq!(one.top_up(tokens_used(0, 40)).await, Topped::Yes);
    assert_eq!(one.top_up(tokens_used(0, 40)).await, Topped::Yes, "the soft one is over");
    assert_eq!(used(&limiter, "t:a", hard).await, 130);
    assert_eq!(one.top_up(tokens_used(0, 40)).await, Topped::Refused { hard: true });
    one.settle(tokens_used(0, 135), None);
    assert_eq!(used(&limiter, "t:a", soft).await, 135);
    assert_eq!(used(&limiter, "t:a", hard).await, 135);
}

#[tokio::test]
async fn a_budget_of_another_period_is_told_with_the_stores_time() {
    let (_metrics, limiter) = node();
    let period = Algorithm::Budget { start_ms: 1, end_ms: 2 };
    let stale = charge(Metric::Cost, 1, rule(9, period, 10));
    let both = vec![admit("t:a", 1, vec![tokens(1, 10)]), admit("t:b", 1, vec![stale])];
    match limiter.admit(both).await.expect_err("it is over") {
        Denied::StalePeriod { now_ms } => {
            assert!(limiter.store().now_ms().abs_diff(now_ms) < 60_000);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(used(&limiter, "t:a", tokens(0, 10)).await, 0);
}

#[tokio::test]
async fn usage_without_a_reservation_is_recorded_too() {
    let (_metrics, limiter) = node();
    let counts = Counts { requests: 1, errors: 1, ..Counts::default() };
    limiter.record("t:a".into(), Row::default(), counts);
    let hour = limiter.store().now_ms() / HOUR_MS;
    let usage = limiter.store().usage(&"t:a".into(), hour - 1..hour + 1).await;
    assert_eq!(usage.expect("it is here").len(), 1);
    assert_eq!(limiter.store().close(Duration::from_secs(1)).await, 0);
}

// N threads of one node admit what one would.
#[test]
fn workers_on_threads_never_admit_more_than_the_limit() {
    let store = Store::standalone(crate::telemetry::StoreMetrics::default());
    let worker = |number: u8| {
        let store = std::sync::Arc::clone(&store);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
                let limiter = Limiter::new(&store);
                let mut admitted = 0;
                for round in 0..250_u8 {
                    let request = RequestId::from_random([
                        number + 1,
                        round,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                    ]);
                    let mut one = admit("t:a", 0, vec![requests(600)]);
                    (one.id.request, one.member) = (request, false);
                    admitted += u32::from(limiter.admit(vec![one]).await.is_ok());
                }
                admitted
            })
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    let admitted: u32 = workers.into_iter().map(|it| it.join().expect("no panic")).sum();
    assert_eq!(admitted, 600);
}

#[test]
fn a_config_shows_no_password() {
    let url = crate::domain::Secret::new("redis://:canary@host".into());
    let tls = crate::store::Tls { ca: None, identity: Some((Vec::new(), b"canary".to_vec())) };
    let config = Config {
        connection: crate::store::connection::Config { url, tls, deadline: Duration::ZERO },
        shape: crate::store::redis::Shape {
            prefix: "flotilla".into(),
            lease_ttl: Duration::from_secs(10),
            usage_ttl: Duration::from_secs(10),
        },
        incarnation: 1,
        membership: None,
    };
    assert!(!format!("{config:?}").contains("canary"));
}
