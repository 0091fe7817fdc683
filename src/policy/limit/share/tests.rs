use std::sync::Arc;

use super::*;
use crate::domain::{AttemptId, RequestId};
use crate::policy::limit::twin::Twin;
use crate::policy::limit::{Admit, Charge, Holder, LimitId, Metric, Verdict};

const ALL: [Degraded; 3] = [Degraded::LocalShare, Degraded::FailClosed, Degraded::FailOpen];
const WINDOW_MS: u64 = 100;

fn rule(algorithm: Algorithm, limit: u64) -> Rule {
    Rule { id: LimitId(*b"12345678"), algorithm, limit }
}

fn window() -> Algorithm {
    Algorithm::Window { slot_ms: 10, slots: 10 }
}

fn most(policy: Degraded, rule: &Rule, live: u32) -> u64 {
    match bound(policy, rule, live) {
        Bound::AtMost(most) => most,
        Bound::Unbounded => u64::MAX,
    }
}

/// The times at which nodes, all of them asked all the time, admit one unit.
fn saturated(rule: &Rule, live: u32, from: u64, until: u64) -> Vec<u64> {
    let mut twins: Vec<Twin> = (0..live).map(|_| Twin::default()).collect();
    let (tag, scope): (Arc<str>, Arc<str>) = ("t:a".into(), "all".into());
    let (mut times, mut number) = (Vec::new(), 0_u128);
    for now in from..until {
        for (rank, twin) in (0..live).zip(&mut twins) {
            while let Share::Of(rule) = share(rule, Fleet { live, rank }, now) {
                number += 1;
                let charge = Charge {
                    scope: 0,
                    rule,
                    amount: 1,
                    holder: Holder::Attempt,
                    metric: Metric::Requests,
                    degraded: Degraded::LocalShare,
                    hard: false,
                };
                let admit = Admit {
                    tag: Arc::clone(&tag),
                    id: AttemptId {
                        request: RequestId::from_random(number.to_be_bytes()),
                        attempt: 1,
                    },
                    scopes: vec![Arc::clone(&scope)],
                    charges: vec![charge],
                    member: false,
                    bill: None,
                };
                match twin.admit(&admit, now, u64::MAX, now) {
                    Verdict::Admitted(_) => times.push(now),
                    _ => break,
                }
            }
        }
    }
    times
}

/// The most that lies in any window.
fn most_in_a_window(times: &[u64]) -> u64 {
    let within =
        |from: u64| times.iter().filter(move |time| (from..from + WINDOW_MS).contains(time));
    times.iter().map(|from| within(*from).count() as u64).max().unwrap_or(0)
}

// T8: the stated bound of each policy.
#[test]
fn saturated_nodes_stay_within_the_limit_and_the_stated_bound_in_any_window() {
    for live in [1, 2, 3, 5, 8] {
        for limit in [0, 1, 2, 3, 5, 7, 8, 9, 20] {
            let rule = rule(window(), limit);
            let times = saturated(&rule, live, 1_000_000, 1_000_000 + 12 * WINDOW_MS);
            let bound = most(Degraded::LocalShare, &rule, live);
            let seen = most_in_a_window(&times);
            assert!(seen <= bound, "{live} nodes, limit {limit}: {seen} above {bound}");
            assert!(bound <= limit, "{live} nodes, limit {limit}: {bound}");
            // And they are not shut: a fleet gives at least a quarter of what one would.
            let fair = limit * 12 / 4;
            assert!(times.len() as u64 >= fair, "{live}, {limit}: {} of {fair}", times.len());
        }
    }
}

#[test]
fn saturated_buckets_stay_within_what_flows_back_and_their_bursts() {
    for live in [1, 2, 3, 8] {
        for (limit, burst) in [(1, 1), (5, 1), (5, 2), (7, 7), (8, 16), (20, 3), (20, 20)] {
            let rule = rule(Algorithm::Bucket { window_ms: WINDOW_MS, burst }, limit);
            let times = saturated(&rule, live, 1_000_000, 1_000_000 + 12 * WINDOW_MS);
            let (seen, bound) = (most_in_a_window(&times), most(Degraded::LocalShare, &rule, live));
            assert!(seen <= bound, "{live} nodes, {limit}, burst {burst}: {seen} above {bound}");
            assert!(bound <= limit + burst + 1, "{live} nodes, {limit}, burst {burst}: {bound}");
            assert!(!times.is_empty());
        }
    }
}

#[test]
fn every_node_has_its_turn_and_knows_how_long_it_waits() {
    for (limit, live) in [(1, 4), (3, 4), (5, 9), (1, 2)] {
        let rule = rule(window(), limit);
        for rank in 0..live {
            let fleet = Fleet { live, rank };
            let mut now = 1_000_003;
            for _ in 0..20 {
                if let Share::Later(wait) = share(&rule, fleet, now) {
                    assert!(wait > 0 && wait <= 2 * WINDOW_MS * u64::from(live) + WINDOW_MS);
                    now += wait;
                    assert!(matches!(share(&rule, fleet, now), Share::Of(_)), "{limit} {live}");
                }
                now += WINDOW_MS / 3;
            }
        }
    }
}

#[test]
fn permits_are_shared_and_a_few_go_around() {
    let of = |limit, live, rank, now| match share(
        &rule(Algorithm::Permits, limit),
        Fleet { live, rank },
        now,
    ) {
        Share::Of(rule) => rule.limit,
        Share::Later(_) => 0,
    };
    assert_eq!((0..4).map(|rank| of(10, 4, rank, 5)).sum::<u64>(), 8);
    for turn in 0..20 {
        let out = (0..8).map(|rank| of(5, 8, rank, turn * PERMIT_TURN_MS)).sum::<u64>();
        assert_eq!(out, 2, "turn {turn}");
    }
    assert_eq!(most(Degraded::LocalShare, &rule(Algorithm::Permits, 10), 4), 8);
    assert_eq!(most(Degraded::LocalShare, &rule(Algorithm::Permits, 5), 8), 8);
}

#[test]
fn a_budget_gives_a_hundredth_shared_by_the_nodes() {
    let budget = rule(Algorithm::Budget { start_ms: 0, end_ms: 9 }, 20_000_000);
    let expected = Rule { limit: 50_000, ..budget };
    assert_eq!(share(&budget, Fleet { live: 4, rank: 3 }, 5), Share::Of(expected));
    assert_eq!(most(Degraded::LocalShare, &budget, 4), 200_000);
    let tiny = Rule { limit: 99, ..budget };
    assert_eq!(share(&tiny, Fleet::default(), 5), Share::Of(Rule { limit: 0, ..budget }));
}

#[test]
fn a_node_alone_has_all_of_it_and_each_policy_its_bound() {
    for algorithm in [window(), Algorithm::Bucket { window_ms: 100, burst: 7 }, Algorithm::Permits]
    {
        let rule = rule(algorithm, 9);
        assert_eq!(share(&rule, Fleet::default(), 123), Share::Of(rule));
        let bounds = ALL.map(|policy| bound(policy, &rule, 3));
        assert!(matches!(bounds, [Bound::AtMost(1..), Bound::AtMost(0), Bound::Unbounded]));
    }
}
