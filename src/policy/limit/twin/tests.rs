use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::{AttemptId, RequestId};
use crate::policy::limit::{
    Algorithm, Bill, Charge, Degraded, Holder, LimitId, Metric, Origin, Refusal,
};

const TAG: &str = "t:acme";
const NOW: u64 = 1_800_000_000_000;

fn id(number: u64, attempt: u8) -> AttemptId {
    let request = (u128::from(number) + 1).to_be_bytes();
    AttemptId { request: RequestId::from_random(request), attempt }
}

fn rule(name: u8, algorithm: Algorithm, limit: u64) -> Rule {
    Rule { id: LimitId([name; 8]), algorithm, limit }
}

fn charge(scope: u8, rule: Rule, amount: u64) -> Charge {
    let is_permit = rule.algorithm == Algorithm::Permits;
    Charge {
        scope,
        rule,
        amount,
        holder: Holder::Attempt,
        metric: if is_permit { Metric::Concurrency } else { Metric::Tokens },
        degraded: Degraded::LocalShare,
        hard: false,
    }
}

fn minute(name: u8, limit: u64) -> Rule {
    rule(name, Algorithm::Window { slot_ms: 1_000, slots: 60 }, limit)
}

fn admit(id: AttemptId, charges: Vec<Charge>, member: bool) -> Admit {
    let scopes = vec!["tenant".into(), "key=a".into()];
    Admit { tag: TAG.into(), id, scopes, charges, member, bill: None }
}

fn settle(admit: &Admit, amounts: &[u64], origin: Origin) -> Settle {
    let with = |(charge, amount): (&Charge, &u64)| Charge { amount: *amount, ..*charge };
    let charges = admit.charges.iter().zip(amounts).map(with).collect();
    Settle { id: admit.id, scopes: admit.scopes.clone(), charges, origin }
}

fn used(twin: &Twin, scope: &str, rule: Rule, now: u64) -> u64 {
    twin.standing(TAG, &[(scope.into(), rule)], now)[0].used
}

#[test]
fn limits_of_two_scopes_with_one_name_count_apart() {
    let mut twin = Twin::default();
    let (one, other) = (charge(0, minute(1, 5), 3), charge(1, minute(1, 5), 1));
    let admitted = twin.admit(&admit(id(1, 1), vec![one, other], false), NOW, NOW, NOW);
    assert_eq!(admitted, Verdict::Admitted(vec![2, 4]));
    assert_eq!(used(&twin, "tenant", minute(1, 5), NOW), 3);
    assert_eq!(used(&twin, "key=a", minute(1, 5), NOW), 1);
}

#[test]
fn a_batch_or_a_step_that_was_applied_is_not_applied_again() {
    let mut twin = Twin::default();
    let one = admit(id(1, 1), vec![charge(0, minute(1, 100), 10)], true);
    twin.admit(&one, NOW, u64::MAX, NOW);
    let more = TopUp {
        tag: TAG.into(),
        id: one.id,
        step: 1,
        scopes: one.scopes.clone(),
        charges: one.charges.clone(),
    };
    assert_eq!(twin.top_up(&more, NOW, NOW), Verdict::Admitted(vec![80]));
    assert_eq!(twin.top_up(&more, NOW, NOW), Verdict::Duplicate);
    assert_eq!(twin.top_up(&more, NOW - 1, NOW), Verdict::Late);
    let charged = settle(&one, &[7], Origin::Elsewhere);
    let batch = Batch {
        tag: TAG.into(),
        incarnation: 1,
        number: 1,
        settles: vec![charged],
        usage: Vec::new(),
    };
    assert_eq!(twin.apply(&batch, NOW), Applied::Now);
    assert_eq!(twin.apply(&batch, NOW), Applied::Before);
    assert_eq!(used(&twin, "tenant", minute(1, 100), NOW), 27);
}

// What was reserved too much and has left the window must not be given back out of what others took.
#[test]
fn a_stream_that_outlives_its_window_gives_back_nothing_that_is_not_its_own() {
    let bucket = rule(1, Algorithm::Bucket { window_ms: 60_000, burst: 1_000 }, 1_000);
    for limit in [minute(1, 1_000), bucket] {
        let mut twin = Twin::default();
        let long = admit(id(1, 1), vec![charge(0, limit, 900)], true);
        twin.admit(&long, NOW, u64::MAX, NOW);
        let later = NOW + 70_000;
        let others = admit(id(2, 1), vec![charge(0, limit, 500)], true);
        assert_eq!(twin.admit(&others, later, u64::MAX, later), Verdict::Admitted(vec![500]));
        let (tag, scopes) = (TAG.into(), long.scopes.clone());
        let more = TopUp { tag, id: long.id, step: 1, scopes, charges: vec![charge(0, limit, 10)] };
        assert_eq!(twin.top_up(&more, later, later), Verdict::Admitted(vec![490]));
        twin.settle(&TAG.into(), &settle(&long, &[100], Origin::Member), later);
        assert_eq!(used(&twin, "tenant", limit, later), 510);
    }
}

// The same limit twice in one command is no configuration's, and takes no more than there is.
#[test]
fn a_limit_that_is_asked_twice_gives_both_together() {
    let mut twin = Twin::default();
    let twice = vec![charge(0, minute(1, 5), 3), charge(0, minute(1, 5), 3)];
    let refused = Refusal { charge: 1, wait_ms: None, left: 5 };
    assert_eq!(
        twin.admit(&admit(id(1, 1), twice, false), NOW, NOW, NOW),
        Verdict::Refused(refused)
    );
    let twice = vec![charge(0, minute(1, 5), 3), charge(0, minute(1, 5), 2)];
    let admitted = twin.admit(&admit(id(1, 1), twice, false), NOW, NOW, NOW);
    assert_eq!(admitted, Verdict::Admitted(vec![2, 0]));
    assert_eq!(used(&twin, "tenant", minute(1, 5), NOW), 5);
}

#[test]
fn a_limit_whose_shape_changes_starts_from_what_was_used() {
    let mut twin = Twin::default();
    let window = minute(1, 10);
    twin.admit(&admit(id(1, 1), vec![charge(0, window, 7)], false), NOW, NOW, NOW);
    let bucket = rule(1, Algorithm::Bucket { window_ms: 60_000, burst: 10 }, 10);
    let longer = rule(1, Algorithm::Window { slot_ms: 60_000, slots: 60 }, 10);
    for other in [bucket, longer] {
        assert_eq!(used(&twin, "tenant", other, NOW), 7);
        let four = admit(id(2, 1), vec![charge(0, other, 4)], false);
        let verdict = twin.admit(&four, NOW, NOW, NOW);
        assert!(matches!(verdict, Verdict::Refused(Refusal { left: 3, .. })), "{verdict:?}");
    }
    let three = admit(id(3, 1), vec![charge(0, bucket, 3)], false);
    assert_eq!(twin.admit(&three, NOW, NOW, NOW), Verdict::Admitted(vec![0]));
    // Half of the bucket has flowed out, and the rest is in the newest slot.
    assert_eq!(used(&twin, "tenant", window, NOW + 30_000), 5);
}

#[test]
fn a_settle_from_before_a_budgets_period_does_not_bring_the_old_one_back() {
    let mut twin = Twin::default();
    let of = |start_ms: u64| Algorithm::Budget { start_ms, end_ms: start_ms + 1_000 };
    let (old, new) = (rule(1, of(NOW), 100), rule(1, of(NOW + 1_000), 100));
    let before = admit(id(1, 1), vec![charge(0, old, 60)], true);
    assert_eq!(twin.admit(&before, NOW, u64::MAX, NOW), Verdict::Admitted(vec![40]));
    let after = admit(id(2, 1), vec![charge(0, new, 10)], true);
    let then = NOW + 1_500;
    let stale = admit(id(9, 1), vec![charge(0, old, 60)], true);
    assert_eq!(twin.admit(&stale, then, u64::MAX, then), Verdict::StalePeriod);
    assert_eq!(twin.admit(&after, then, u64::MAX, then), Verdict::Admitted(vec![90]));
    twin.settle(&TAG.into(), &settle(&before, &[50], Origin::Member), then);
    assert_eq!(used(&twin, "tenant", new, then), 10, "a refund of the old period is dropped");
    let elsewhere = admit(id(3, 1), vec![charge(0, old, 5)], true);
    twin.settle(&TAG.into(), &settle(&elsewhere, &[5], Origin::Elsewhere), then);
    assert_eq!(used(&twin, "tenant", new, then), 15, "what was used in any case counts now");
}

#[test]
fn everything_is_cleared_away_when_its_time_is_over() {
    let mut twin = Twin::default();
    let permits = rule(9, Algorithm::Permits, 3);
    for number in 0..200 {
        let scopes = vec!["tenant".into(), format!("user={number}").into()];
        let charges = vec![charge(0, minute(1, 1_000), 1), charge(1, minute(2, 5), 1)];
        let mut member = admit(id(number, 1), charges, true);
        member.charges.push(charge(1, permits, 1));
        member.scopes = scopes;
        let now = NOW + number;
        assert!(matches!(twin.admit(&member, now, now + 5_000, now), Verdict::Admitted(_)));
        twin.settle(&TAG.into(), &settle(&member, &[1, 1, 0], Origin::Member), now);
    }
    assert_eq!((twin.tags(), twin.scopes()), (1, 201));
    assert_eq!(twin.expiry.len(), 202, "one entry each");
    // Other tags come by; each command clears a few things away.
    let later = NOW + 200_000;
    for number in 0..60 {
        let mut other = admit(id(1_000 + number, 1), vec![charge(0, minute(1, 1_000), 1)], false);
        other.tag = "t:other".into();
        twin.admit(&other, later + number, later, later + number);
    }
    assert_eq!((twin.scopes(), twin.forgotten()), (1, 0));
    let much_later = later + 500_000;
    for step in 0..4 {
        twin.renew(&"t:third".into(), &[], 0, much_later + step * 100_000);
    }
    assert_eq!((twin.tags(), twin.scopes()), (1, 0));
}

#[test]
fn usage_is_kept_for_a_month_and_its_rows_are_bounded() {
    let mut twin = Twin::default();
    let tag = TAG.into();
    let one = Counts { requests: 1, ..Counts::default() };
    let row = |key: String| Row { key: key.as_str().into(), ..Row::default() };
    let hour = NOW / 3_600_000;
    for number in 0..MAX_ROWS_OF_HOUR + 5 {
        twin.record(&tag, hour, &row(number.to_string()), &one, NOW);
    }
    let rows = twin.usage(TAG, hour..hour + 1);
    assert_eq!(rows.len(), MAX_ROWS_OF_HOUR + 1);
    let other = rows.iter().find(|(_, row, _)| *row == Row::other()).expect("the row `other`");
    assert_eq!(other.2.requests, 5);
    let month = NOW + 31 * 86_400_000;
    twin.renew(&tag, &[], 0, month);
    assert_eq!(twin.usage(TAG, hour..hour + 1).len(), MAX_ROWS_OF_HOUR + 1);
    for step in 1..4 {
        twin.renew(&tag, &[], 0, month + step * 86_400_000);
    }
    assert_eq!(twin.usage(TAG, 0..u64::MAX).len(), 0);
}

#[test]
fn there_are_never_more_scopes_than_the_bound_and_the_soonest_empty_goes_first() {
    let mut twin = Twin::default();
    let hour = rule(1, Algorithm::Window { slot_ms: 60_000, slots: 60 }, 10);
    let mut keeps = admit(id(0, 1), vec![charge(0, hour, 1)], false);
    keeps.tag = "t:keeps".into();
    twin.admit(&keeps, NOW, NOW, NOW);
    for number in 0..MAX_SCOPES as u64 + 100 {
        let mut one = admit(id(number + 1, 1), vec![charge(0, minute(2, 10), 1)], false);
        one.tag = format!("l:ip:{number}").into();
        twin.admit(&one, NOW, NOW, NOW);
    }
    assert_eq!((twin.scopes(), twin.forgotten()), (MAX_SCOPES, 101));
    assert_eq!(twin.standing("t:keeps", &[("tenant".into(), hour)], NOW)[0].used, 1);
}

#[test]
fn a_late_truth_of_a_lost_member_is_applied_as_a_difference() {
    let mut twin = Twin::default();
    let tag: Arc<str> = TAG.into();
    let row = Row { key: "a".into(), ..Row::default() };
    let estimate = Counts { input_tokens: 50, requests: 1, ..Counts::default() };
    let mut lost = admit(id(1, 1), vec![charge(0, minute(1, 100), 50)], true);
    lost.bill = Some(Bill { row: row.clone(), estimate });
    twin.admit(&lost, NOW, NOW + 10_000, NOW);
    let sweep = settle(&lost, &[50], Origin::Lapsed);
    twin.settle(&tag, &sweep, NOW + 9_999);
    assert!(twin.usage(TAG, 0..u64::MAX).is_empty(), "its lease has not ended");
    assert_eq!(twin.lapsed(TAG, 10, NOW + 10_000).len(), 1);
    for _ in 0..2 {
        twin.settle(&tag, &sweep, NOW + 10_000);
    }
    let hour = NOW / 3_600_000;
    let flagged = Counts { attempts: 1, estimated: 1, node_lost: 1, ..estimate };
    assert_eq!(twin.usage(TAG, hour..hour + 1), [(hour, row.clone(), flagged)]);
    assert_eq!(used(&twin, "tenant", minute(1, 100), NOW + 10_000), 50);
    for _ in 0..2 {
        twin.settle(&tag, &settle(&lost, &[20], Origin::Member), NOW + 11_000);
    }
    assert_eq!(used(&twin, "tenant", minute(1, 100), NOW + 11_000), 20);
    assert_eq!(twin.usage(TAG, hour..hour + 1), [(hour, row, Counts::default())]);
}

/// The reference: a list of what was admitted when, and nothing clever.
#[derive(Default)]
struct Reference {
    /// Scope, time, amount.
    log: Vec<(u8, u64, u64)>,
    open: HashMap<u64, (u64, Vec<(u8, u64)>)>,
}

impl Reference {
    fn sum(&self, scope: u8, from: u64, to: u64) -> u64 {
        let within = |entry: &&(u8, u64, u64)| entry.0 == scope && (from..=to).contains(&entry.1);
        self.log.iter().filter(within).map(|entry| entry.2).sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit { number: u64, amounts: (u64, u64), pause: u64 },
    Settle { number: u64, used: (u64, u64) },
}

fn step() -> impl Strategy<Value = Step> {
    let admit = (0_u64..60, (0_u64..40, 0_u64..40), 0_u64..9_000)
        .prop_map(|(number, amounts, pause)| Step::Admit { number, amounts, pause });
    let settle = (0_u64..60, (0_u64..60, 0_u64..60))
        .prop_map(|(number, used)| Step::Settle { number, used });
    prop_oneof![3 => admit, 2 => settle]
}

proptest! {
    // T3, over the twin: reservations, resends and refusals over two scopes and permits. While
    // nothing is settled above what was reserved, no true window has more than its limit; ids count
    // once; a refusal changes nothing; permits are those of the open members.
    #[test]
    fn whatever_happens_no_limit_is_passed_and_nothing_counts_twice(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut twin = Twin::default();
        let mut reference = Reference::default();
        let (wide, narrow) = (minute(1, 150), minute(2, 70));
        let permits = rule(3, Algorithm::Permits, 8);
        let asked = [("tenant".into(), wide), ("key=a".into(), narrow), ("tenant".into(), permits)];
        let mut now = NOW;
        let mut settled = std::collections::HashSet::new();
        for step in steps {
            match step {
                Step::Admit { number, amounts, pause } => {
                    now += pause;
                    let charges = vec![
                        charge(0, wide, amounts.0),
                        charge(1, narrow, amounts.1),
                        charge(0, permits, 1),
                    ];
                    let command = admit(id(number, 1), charges, true);
                    let before = twin.standing(TAG, &asked, now);
                    // Within its deadline an id stays known, also when it was settled meanwhile.
                    let verdict = twin.admit(&command, now + 1_000_000_000, u64::MAX, now);
                    let after = twin.standing(TAG, &asked, now);
                    let known = reference.open.contains_key(&number) || settled.contains(&number);
                    match verdict {
                        Verdict::Admitted(_) => {
                            prop_assert!(!known);
                            let taken = vec![(0, amounts.0), (1, amounts.1)];
                            reference.log.extend(taken.iter().map(|(scope, n)| (*scope, now, *n)));
                            reference.open.insert(number, (now, taken));
                        }
                        Verdict::Duplicate => {
                            prop_assert!(known);
                            prop_assert_eq!(before, after);
                        }
                        Verdict::Refused(_) => {
                            prop_assert!(!known);
                            prop_assert_eq!(before, after);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Settle { number, used } => {
                    let Some((at, taken)) = reference.open.remove(&number) else { continue };
                    // Never more than reserved, so that no debt arises.
                    let truth = [used.0.min(taken[0].1), used.1.min(taken[1].1)];
                    for ((scope, reserved), used) in taken.iter().zip(truth) {
                        let mine = |entry: &&mut (u8, u64, u64)| {
                            (entry.0, entry.1, entry.2) == (*scope, at, *reserved)
                        };
                        if let Some(entry) = reference.log.iter_mut().find(mine) {
                            entry.2 = used;
                        }
                    }
                    let charges = vec![
                        charge(0, wide, taken[0].1),
                        charge(1, narrow, taken[1].1),
                        charge(0, permits, 1),
                    ];
                    let command = admit(id(number, 1), charges, true);
                    let truth = settle(&command, &[truth[0], truth[1], 0], Origin::Member);
                    twin.settle(&TAG.into(), &truth, now);
                    twin.settle(&TAG.into(), &truth, now);
                    settled.insert(number);
                }
            }
            let standing = twin.standing(TAG, &asked, now);
            for (scope, (standing, limit)) in standing.iter().zip([150, 70]).enumerate() {
                let scope = scope as u8;
                prop_assert!(reference.sum(scope, now - 60_000, now) <= limit);
                // What the twin counts is the true window, and at most a slot more of it.
                prop_assert!(standing.used >= reference.sum(scope, now - 60_000, now));
                prop_assert!(standing.used <= reference.sum(scope, now - 61_000, now));
            }
            prop_assert_eq!(standing[2].used, reference.open.len() as u64);
            prop_assert!(reference.open.len() <= 8);
        }
    }
}
