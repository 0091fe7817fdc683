//! The same histories on the scripts and on the twin: every answer and every standing is the same.
//!
//! Histories hold what happens to limits: admissions, also sent twice and late; truths in every
//! order, of members, of lost ones, of others; top-ups, renewals, limits that change their shape. The
//! clock never goes back here: the twin forgets at once what is empty, Redis keeps it for a while, and
//! only a clock that goes back shows the difference. What each does then is in their own tests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flotilla::policy::limit::twin::Twin;
use flotilla::policy::limit::{
    Admit, Algorithm, Batch, Bill, Charge, Counts, Holder, Origin, Renew, Row, Rule, Settle, TopUp,
    Verdict,
};
use flotilla::store::connection::TestClock;
use flotilla::store::redis::Redis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::world::{LEASE, START, TAG, charge, config, id, local, rule, shape};
use crate::support::redis::{Kind, prefix, shared};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The clock goes on.
    Pass(u64),
    /// From now on limits have this shape.
    Reshape(u8),
    /// Of each limit this amount is asked, if any.
    Admit {
        amounts: [Option<u64>; 6],
        member: bool,
        billed: bool,
        patience: u64,
    },
    /// One of the last is sent again.
    Again(usize),
    TopUp {
        which: usize,
        step: u8,
        amounts: [u64; 6],
    },
    Settle {
        which: usize,
        origin: u8,
        amounts: [u64; 6],
        repeat: bool,
    },
    Renew {
        which: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = prop_oneof![3 => 0_u64..6, 1 => 6_u64..30];
    let amounts = prop::array::uniform6(amount.clone());
    let pass = prop_oneof![
        6 => 0_u64..900,
        3 => 900_u64..12_000,
        1 => 12_000_u64..400_000,
    ];
    let step = prop_oneof![
        4 => pass.prop_map(Step::Pass),
        1 => (0_u8..4).prop_map(Step::Reshape),
        6 => (prop::array::uniform6(prop::option::of(amount)), any::<bool>(), any::<bool>(), 0_u64..3_000)
            .prop_map(|(amounts, member, billed, patience)| Step::Admit { amounts, member, billed, patience }),
        1 => (0_usize..8).prop_map(Step::Again),
        2 => (0_usize..8, 0_u8..4, amounts.clone())
            .prop_map(|(which, step, amounts)| Step::TopUp { which, step, amounts }),
        4 => (0_usize..12, 0_u8..4, amounts, prop::bool::weighted(0.1))
            .prop_map(|(which, origin, amounts, repeat)| Step::Settle { which, origin, amounts, repeat }),
        1 => (0_usize..8).prop_map(|which| Step::Renew { which }),
    ];
    prop::collection::vec(step, 1..70)
}

/// The limits in one of their shapes; the last one counts permits.
fn rules(shape: u8) -> [(u8, Rule, Holder); 6] {
    let second = if shape == 1 { 500 } else { 1_000 };
    let window = |slots| Algorithm::Window { slot_ms: second, slots };
    let burst = if shape == 2 { 40 } else { 20 };
    let bucket = Algorithm::Bucket { window_ms: if shape == 3 { 7_000 } else { 10_000 }, burst };
    let start_ms = START - 7_200_000 - u64::from(shape == 2) * 1_000;
    let budget = Algorithm::Budget { start_ms, end_ms: START + 600_000 };
    let changed = if shape == 3 { bucket } else { window(5) };
    let limit = if shape == 1 { 15 } else { 25 };
    [
        (0, rule(b"window01", window(10), limit), Holder::Request),
        (1, rule(b"changing", changed, 30), Holder::Request),
        (1, rule(b"bucket01", bucket, 12), Holder::Request),
        (2, rule(b"budget01", budget, 120), Holder::Request),
        (0, rule(b"permits1", Algorithm::Permits, 3), Holder::Attempt),
        (1, rule(b"permits2", Algorithm::Permits, 4), Holder::Request),
    ]
}

fn scopes() -> Vec<Arc<str>> {
    vec!["tenant".into(), "key=a".into(), "budget".into()]
}

fn charges(shape: u8, amounts: [Option<u64>; 6]) -> Vec<Charge> {
    let asked = rules(shape).into_iter().zip(amounts);
    asked
        .filter_map(|((scope, rule, holder), amount)| {
            let amount =
                if rule.algorithm == Algorithm::Permits { amount.map(|_| 1) } else { amount };
            Some(Charge { holder, ..charge(scope, rule, amount?) })
        })
        .collect()
}

fn bill() -> Bill {
    let name = |name: &str| -> Arc<str> { name.into() };
    let row = Row { key: name("a"), pool: name("p"), target: name("t"), model: name("m") };
    Bill {
        row,
        estimate: Counts { requests: 1, input_tokens: 50, cost_micro_usd: 7, ..Counts::default() },
    }
}

/// A verdict without what is left of permits: leases that ended count there until somebody needs
/// their place, and each side forgets them when it suits it.
fn seen(admit: &Admit, mut verdict: Verdict) -> Verdict {
    if let Verdict::Admitted(left) = &mut verdict {
        for (left, charge) in left.iter_mut().zip(&admit.charges) {
            if charge.rule.algorithm == Algorithm::Permits {
                *left = 0;
            }
        }
    }
    verdict
}

/// The two under one clock.
struct Pair {
    now: u64,
    shape: u8,
    twin: Twin,
    clock: TestClock,
    redis: Redis,
    admits: Vec<(Admit, u64)>,
    number: u64,
}

impl Pair {
    async fn step(&mut self, step: &Step) {
        let tag: Arc<str> = TAG.into();
        match step {
            Step::Pass(ms) => {
                self.now += ms;
                self.clock.0.store(self.now, Ordering::Relaxed);
            }
            Step::Reshape(shape) => self.shape = *shape,
            Step::Admit { amounts, member, billed, patience } => {
                let admit = Admit {
                    tag,
                    id: id(),
                    scopes: scopes(),
                    charges: charges(self.shape, *amounts),
                    member: *member,
                    bill: (*billed && *member).then(bill),
                };
                self.admits.push((admit, self.now + patience));
                self.admit(self.admits.len() - 1).await;
            }
            Step::Again(which) => {
                if let Some(place) = self.place(*which) {
                    self.admit(place).await;
                }
            }
            Step::TopUp { which, step, amounts } => {
                let Some(place) = self.place(*which) else { return };
                let more = self.with(place, *amounts);
                let (id, scopes) = (self.admits[place].0.id, scopes());
                let more = TopUp { tag, id, step: *step, scopes, charges: more };
                let expected = self.twin.top_up(&more, self.now, self.now);
                assert_eq!(self.redis.top_up(&more).await, Ok(expected), "{more:?}");
            }
            Step::Settle { which, origin, amounts, repeat } => {
                let Some(place) = self.place(*which) else { return };
                let admit = &self.admits[place].0;
                let origin = match origin {
                    0 | 1 => Origin::Member,
                    2 => Origin::Lapsed,
                    _ => Origin::Elsewhere,
                };
                let charges = self.with(place, *amounts);
                let settle = Settle { id: admit.id, scopes: scopes(), charges, origin };
                self.number += u64::from(!*repeat);
                let counts =
                    Counts { requests: 1, output_tokens: amounts[0] as i64, ..Counts::default() };
                let usage = vec![(self.now / 3_600_000, bill().row, counts)];
                let batch = Batch {
                    tag,
                    incarnation: 5,
                    number: self.number,
                    settles: vec![settle],
                    usage,
                };
                let expected = self.twin.apply(&batch, self.now);
                assert_eq!(self.redis.apply(&batch).await, Ok(expected), "{batch:?}");
            }
            Step::Renew { which } => {
                let Some(place) = self.place(*which) else { return };
                let admit = &self.admits[place].0;
                let (charges, member) = (admit.charges.clone(), admit.member);
                let lease = [Renew { id: admit.id, scopes: scopes(), charges, member }];
                self.twin.renew(&tag, &lease, self.now + LEASE, self.now);
                self.redis.renew(&tag, &lease).await.expect("redis answers");
            }
        }
    }

    async fn admit(&mut self, place: usize) {
        let (admit, deadline) = self.admits[place].clone();
        let expected = self.twin.admit(&admit, deadline, self.now + LEASE, self.now);
        let verdict = self.redis.admit_by(&admit, deadline).await.expect("redis answers");
        assert_eq!(seen(&admit, verdict), seen(&admit, expected), "{admit:?}");
    }

    /// One of the latest admissions.
    fn place(&self, which: usize) -> Option<usize> {
        self.admits.len().checked_sub(1 + which)
    }

    fn with(&self, place: usize, amounts: [u64; 6]) -> Vec<Charge> {
        let charges = self.admits[place].0.charges.iter().zip(amounts);
        charges
            .map(|(charge, amount)| {
                let permit = charge.rule.algorithm == Algorithm::Permits;
                Charge { amount: if permit { amount % 2 } else { amount }, ..*charge }
            })
            .collect()
    }

    /// All that can be seen from outside.
    async fn compare(&self) {
        let scopes = scopes();
        let asked: Vec<_> = rules(self.shape)
            .into_iter()
            .map(|(scope, rule, _)| (scopes[usize::from(scope)].clone(), rule))
            .collect();
        let expected = self.twin.standing(TAG, &asked, self.now);
        assert_eq!(self.redis.standing(TAG, &asked).await, Ok(expected));
        let text = |lapsed: Vec<flotilla::policy::limit::Lapsed>| {
            let mut all: Vec<_> = lapsed.iter().map(|one| format!("{one:?}")).collect();
            all.sort();
            all
        };
        let expected = text(self.twin.lapsed(TAG, 1_000, self.now));
        assert_eq!(text(self.redis.lapsed(TAG, 1_000).await.expect("redis answers")), expected);
        for hour in self.now / 3_600_000 - 1..=self.now / 3_600_000 {
            let expected: Vec<_> = self.twin.usage(TAG, hour..hour + 1);
            let expected: Vec<_> =
                expected.into_iter().map(|(_, row, counts)| (row, counts)).collect();
            assert_eq!(self.redis.usage(TAG, hour).await, Ok(expected));
        }
    }
}

#[test]
fn scripts_and_twin_answer_the_same_to_any_history() {
    let cases =
        Config { cases: 96, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let outcome = TestRunner::new(cases).run(&steps(), |history| {
        local(async {
            let clock = TestClock::default();
            clock.0.store(START, Ordering::Relaxed);
            let url = shared(Kind::Redis7).url();
            let redis = Redis::open_with_clock(&config(&url), &shape(&prefix()), clock.clone());
            let redis = redis.expect("a good URL");
            let (admits, twin) = (Vec::new(), Twin::default());
            let mut pair = Pair { now: START, shape: 0, twin, clock, redis, admits, number: 1 };
            for step in &history {
                pair.step(step).await;
                pair.compare().await;
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
