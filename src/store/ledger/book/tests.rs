use super::page::BATCH_SETTLES;
use super::*;
use crate::domain::{AttemptId, RequestId};
use crate::policy::limit::{
    Algorithm, Charge, Counts, Degraded, Holder, LimitId, Metric, Origin, Row, Rule, Settle,
};

/// No leases are held.
fn none(_: AttemptId) -> bool {
    false
}

const TAG: &str = "t:acme";

fn book() -> Book {
    Book::new(7, 200)
}

fn id(number: u8) -> AttemptId {
    AttemptId { request: RequestId::from_random([number; 16]), attempt: 1 }
}

fn charge(algorithm: Algorithm, amount: u64) -> Charge {
    Charge {
        scope: 0,
        rule: Rule { id: LimitId(*b"the-rule"), algorithm, limit: 10 },
        amount,
        holder: Holder::Attempt,
        metric: Metric::Cost,
        degraded: Degraded::LocalShare,
        hard: false,
    }
}

const WINDOW: Algorithm = Algorithm::Window { slot_ms: 1_000, slots: 60 };

fn settle(number: u8, origin: Origin, charges: Vec<Charge>) -> Settle {
    Settle { id: id(number), scopes: vec!["tenant".into()], charges, origin }
}

fn truth(tag: &str, number: u8) -> Entry {
    let settle = settle(number, Origin::Member, vec![charge(WINDOW, 1)]);
    Entry { tag: tag.into(), settle: Some(settle), usage: None }
}

fn elsewhere(number: u8, charges: Vec<Charge>) -> Entry {
    let settle = settle(number, Origin::Elsewhere, charges);
    Entry { tag: TAG.into(), settle: Some(settle), usage: None }
}

fn usage(tag: &str, hour: u64, key: &str) -> Entry {
    let row = Row { key: key.into(), ..Row::default() };
    let counts = Counts { requests: 1, ..Counts::default() };
    Entry { tag: tag.into(), settle: None, usage: Some((hour, row, counts)) }
}

fn ids(batch: &Batch) -> Vec<u8> {
    batch.settles.iter().map(|settle| settle.id.request.to_bytes()[0]).collect()
}

#[test]
fn a_release_waits_five_milliseconds_and_takes_along_what_waits() {
    let mut book = book();
    assert!(book.post(truth(TAG, 1), Haste::Settle, 1_000));
    assert_eq!(book.next_due(), Some(1_100));
    assert!(book.post(truth(TAG, 2), Haste::Release, 1_010), "it is due earlier");
    assert!(!book.post(truth(TAG, 3), Haste::Release, 1_012));
    assert_eq!(book.next_due(), Some(1_015));
    assert!(book.take(1_014, 64, none).is_empty());
    let batches = book.take(1_015, 64, none);
    assert_eq!(batches.len(), 1);
    assert_eq!(ids(&batches[0]), [1, 2, 3]);
    assert_eq!(book.next_due(), None, "until it is acknowledged");
}

#[test]
fn a_batch_keeps_its_number_and_content_until_it_is_acknowledged() {
    let mut book = book();
    book.post(truth(TAG, 1), Haste::Release, 0);
    let first = book.take(5, 64, none).remove(0);
    book.post(truth(TAG, 2), Haste::Release, 6);
    assert!(book.take(50, 64, none).is_empty(), "one is under way");
    for failures in 0..12 {
        let now = 100 + failures * 2_000;
        book.failed(&TAG.into(), now, failures);
        let due = book.next_due().expect("it is sent again");
        assert!(due > now && due <= now + 1_000);
        let again = book.take(due, 64, none).remove(0);
        assert_eq!((again.number, ids(&again)), (first.number, vec![1]));
    }
    book.acknowledged(&TAG.into(), 50_000);
    let next = book.take(50_000, 64, none).remove(0);
    assert_eq!((next.incarnation, ids(&next)), (7, vec![2]));
    assert!(next.number > first.number);
    book.acknowledged(&TAG.into(), 50_001);
    assert_eq!((book.waiting(), book.next_due()), (0, None));
    assert!(
        book.pages.is_empty() && book.agenda.is_empty(),
        "nothing is kept of a tag that is done"
    );
}

#[test]
fn numbers_count_up_even_of_a_tag_that_was_forgotten_in_between() {
    let mut book = book();
    let mut last = 0;
    for round in 0..10 {
        book.post(truth(TAG, 1), Haste::Release, round * 10);
        book.post(truth("t:other", 1), Haste::Release, round * 10);
        for batch in book.take(round * 10 + 5, 64, none) {
            assert!(batch.number > last);
            last = batch.number;
            book.acknowledged(&batch.tag, round * 10 + 6);
        }
    }
}

#[test]
fn usage_adds_up_by_row_and_hour() {
    let mut book = book();
    for hour in [1, 1, 2, 1] {
        book.post(usage(TAG, hour, "a"), Haste::Settle, 0);
    }
    assert_eq!(book.waiting(), 2);
    let batch = book.take(100, 64, none).remove(0);
    let mut hours: Vec<_> =
        batch.usage.iter().map(|(hour, _, counts)| (*hour, counts.requests)).collect();
    hours.sort_unstable();
    assert_eq!(hours, [(1, 3), (2, 1)]);
}

#[test]
fn usage_of_too_many_rows_is_added_up_in_one() {
    let mut book = book();
    for row in 0..MAX_ROWS + 50 {
        book.post(usage(TAG, 1, &format!("key-{row}")), Haste::Settle, 0);
    }
    assert!(book.waiting() <= MAX_ROWS + 1, "{}", book.waiting());
    let mut sum = 0;
    while let Some(batch) = book.take(1_000, 64, none).pop() {
        sum += batch.usage.iter().map(|(_, _, counts)| counts.requests).sum::<i64>();
        book.acknowledged(&batch.tag, 1_000);
    }
    assert_eq!(sum, MAX_ROWS as i64 + 50, "nothing is lost");
    assert_eq!(book.dropped(), 0);
}

#[test]
fn what_was_admitted_elsewhere_adds_up_by_limit_and_period() {
    let mut book = book();
    let january = Algorithm::Budget { start_ms: 1, end_ms: 2 };
    let february = Algorithm::Budget { start_ms: 2, end_ms: 3 };
    for number in 0..100 {
        book.post(elsewhere(number, vec![charge(WINDOW, 2)]), Haste::Settle, 0);
    }
    book.post(elsewhere(1, vec![charge(january, 5)]), Haste::Settle, 0);
    book.post(elsewhere(2, vec![charge(february, 6)]), Haste::Settle, 0);
    book.post(elsewhere(3, vec![charge(february, 7)]), Haste::Settle, 0);
    assert_eq!(book.waiting(), 3);
    let batch = book.take(100, 64, none).remove(0);
    let mut amounts: Vec<_> = batch.settles.iter().map(|settle| settle.charges[0].amount).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [5, 13, 200]);
    assert!(batch.settles.iter().all(|settle| settle.origin == Origin::Elsewhere));
}

// A renewal registers them again, so a permit that was never asked for here may be held here.
#[test]
fn permits_of_what_was_admitted_elsewhere_are_released_one_by_one() {
    let mut book = book();
    for number in 1..=2 {
        let charges = vec![charge(WINDOW, 2), charge(Algorithm::Permits, 0)];
        book.post(elsewhere(number, charges), Haste::Release, 0);
    }
    let batch = book.take(5, 64, none).remove(0);
    let (released, charged): (Vec<_>, Vec<_>) =
        batch.settles.iter().partition(|settle| settle.origin == Origin::Member);
    assert_eq!((released.len(), charged.len()), (2, 1));
    assert!(released.iter().all(|settle| settle.charges == [charge(Algorithm::Permits, 0)]));
    assert_eq!(charged[0].charges, [charge(WINDOW, 4)]);
}

#[test]
fn what_was_given_up_waits_until_it_cannot_be_executed_any_more() {
    let mut book = book();
    book.post(truth(TAG, 1), Haste::GivenUp, 0);
    book.post(truth(TAG, 2), Haste::Release, 0);
    assert!(book.is_done(&TAG.into(), 1), "nobody waits for it");
    let batch = book.take(5, 64, none).remove(0);
    assert_eq!(ids(&batch), [2]);
    book.acknowledged(&TAG.into(), 6);
    assert_eq!(book.next_due(), Some(200));
    assert_eq!(ids(&book.take(200, 64, none)[0]), [1]);
}

// The request went on, and its next attempt asked for the same permits.
#[test]
fn what_is_taken_back_leaves_permits_to_who_holds_them() {
    for haste in [Haste::GivenUp, Haste::Release] {
        let mut book = book();
        let mut given_up = settle(1, Origin::Member, vec![charge(WINDOW, 0)]);
        for holder in [Holder::Request, Holder::Attempt] {
            given_up.charges.push(Charge { holder, ..charge(Algorithm::Permits, 0) });
        }
        let entry = Entry { tag: TAG.into(), settle: Some(given_up), usage: None };
        book.post(entry, haste, 0);
        let batch = book.take(200, 64, |held| held == AttemptId { attempt: 0, ..id(1) }).remove(0);
        let amounts: Vec<_> = batch.settles[0].charges.iter().map(|charge| charge.amount).collect();
        assert_eq!(amounts, [0, 1, 0], "{haste:?}");
    }
}

#[test]
fn a_release_is_not_overtaken_by_a_renewal_that_was_decided_before_it() {
    let mut book = book();
    let tag: Arc<str> = TAG.into();
    book.hold(&tag);
    book.hold(&tag);
    book.post(truth(TAG, 1), Haste::Release, 0);
    book.let_go(&tag);
    assert!(book.take(1_000, 64, none).is_empty());
    book.let_go(&tag);
    assert_eq!(book.take(1_000, 64, none).len(), 1);
}

#[test]
fn batches_are_bounded_and_what_is_left_follows_at_once() {
    let mut book = book();
    let all = BATCH_SETTLES * 2 + 10;
    for number in 0..all {
        book.post(truth(TAG, number as u8), Haste::Settle, 0);
    }
    let (mut sent, mut now) = (0, 100);
    while let Some(batch) = book.take(now, 64, none).pop() {
        assert!(batch.settles.len() <= BATCH_SETTLES);
        sent += batch.settles.len();
        now += 1;
        book.acknowledged(&batch.tag, now);
    }
    assert_eq!((sent, now, book.waiting()), (all, 103, 0));
}

#[test]
fn no_more_batches_are_taken_than_asked_for() {
    let mut book = book();
    for tag in 0..10 {
        book.post(truth(&format!("t:{tag}"), 1), Haste::Release, 0);
    }
    assert_eq!(book.take(5, 4, none).len(), 4);
    assert_eq!(book.take(5, 0, none).len(), 0);
    assert_eq!(book.take(5, 64, none).len(), 6);
}

#[test]
fn who_waits_is_told_when_all_before_is_in_force() {
    let mut book = book();
    let tag: Arc<str> = TAG.into();
    book.post(truth(TAG, 1), Haste::Settle, 0);
    book.post(usage(TAG, 1, "a"), Haste::Settle, 0);
    let ticket = book.ticket();
    book.hurry(&tag, 1);
    assert_eq!(book.next_due(), Some(1));
    assert!(!book.is_done(&tag, ticket));
    book.take(1, 64, none);
    book.post(truth(TAG, 2), Haste::Settle, 2);
    assert!(!book.is_done(&tag, ticket), "it is under way");
    book.acknowledged(&tag, 3);
    assert!(book.is_done(&tag, ticket), "what came later does not matter");
}

#[test]
fn a_settle_too_many_is_dropped_and_counted() {
    let mut book = book();
    for number in 0..MAX_SETTLES + 3 {
        book.post(truth(TAG, number as u8), Haste::Settle, 0);
    }
    assert_eq!((book.waiting(), book.dropped()), (MAX_SETTLES, 3));
}
