//! What every backend of limits does, in sentences.
//!
//! A test says when time passes, and reads the time from the backend; it never knows the time
//! itself. A backend under a clock of its own may really wait: what is waited for is at most some
//! ten windows of a second, but for leases.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla::domain::{AttemptId, RequestId};
use flotilla::policy::limit::{
    Admit, Algorithm, Applied, Batch, Bill, Charge, Counts, Degraded, Holder, LimitId, Metric,
    Origin, Refusal, Renew, Row, Rule, Settle, TopUp, Verdict,
};
use flotilla::store::Commands;

/// How long a lease of the rig lives.
pub(crate) const LEASE_MS: u64 = 10_000;

/// A slot of the windows here, and how many make one.
const SLOT_MS: u64 = 100;
const SLOTS: u32 = 10;
const WINDOW_MS: u64 = SLOT_MS * SLOTS as u64;

/// A backend under test. Each one is fresh, with leases of `LEASE_MS`.
pub(crate) trait Rig {
    /// What is tested.
    type Commands: Commands;

    /// With nothing in it.
    async fn fresh() -> Self;
    /// What is tested.
    fn commands(&self) -> &Self::Commands;
    /// The backend's own time in milliseconds.
    async fn now(&self) -> u64;
    /// Lets at least so much time pass.
    async fn pass(&self, ms: u64);
    /// An admission with a deadline of the test's choice, in the backend's time.
    async fn admit_by(&self, admit: &Admit, deadline_ms: u64) -> Verdict;
}

// === what is asked ===

fn rule(name: u8, algorithm: Algorithm, limit: u64) -> Rule {
    Rule { id: LimitId([b'a' + name; 8]), algorithm, limit }
}

fn window(limit: u64) -> Rule {
    rule(1, Algorithm::Window { slot_ms: SLOT_MS, slots: SLOTS }, limit)
}

/// A window that no test outlasts.
fn hour(limit: u64) -> Rule {
    rule(2, Algorithm::Window { slot_ms: 60_000, slots: 60 }, limit)
}

fn permits(limit: u64) -> Rule {
    rule(3, Algorithm::Permits, limit)
}

fn budget(period: Range<u64>, limit: u64) -> Rule {
    rule(4, Algorithm::Budget { start_ms: period.start, end_ms: period.end }, limit)
}

/// Of the tenant.
fn of(rule: Rule, amount: u64) -> Charge {
    let is_permit = rule.algorithm == Algorithm::Permits;
    Charge {
        scope: 0,
        rule,
        amount,
        holder: Holder::Attempt,
        metric: if is_permit { Metric::Concurrency } else { Metric::Tokens },
        degraded: Degraded::LocalShare,
        hard: false,
    }
}

/// Of one key.
fn of_key(rule: Rule, amount: u64) -> Charge {
    Charge { scope: 1, ..of(rule, amount) }
}

fn of_request(rule: Rule) -> Charge {
    Charge { holder: Holder::Request, ..of(rule, 1) }
}

fn next_id() -> AttemptId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let request = u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
    AttemptId { request: RequestId::from_random(request), attempt: 1 }
}

/// An attempt that stays a member until it is settled.
fn member(charges: &[Charge]) -> Admit {
    let scopes = vec!["tenant".into(), "key=a".into()];
    let charges = charges.to_vec();
    Admit { tag: "t:acme".into(), id: next_id(), scopes, charges, member: true, bill: None }
}

/// One that only requests are counted of.
fn plain(charges: &[Charge]) -> Admit {
    Admit { member: false, ..member(charges) }
}

fn row(key: &str) -> Row {
    let name = |name: &str| -> Arc<str> { name.into() };
    Row { key: name(key), pool: name("fast"), target: name("gpt-a"), model: name("gpt-4o") }
}

/// The truth about an attempt; its amounts in the order of its charges.
fn truth(admit: &Admit, amounts: &[u64]) -> Settle {
    let with = |(charge, amount): (&Charge, &u64)| Charge { amount: *amount, ..*charge };
    let charges = admit.charges.iter().zip(amounts).map(with).collect();
    Settle { id: admit.id, scopes: admit.scopes.clone(), charges, origin: Origin::Member }
}

fn from(origin: Origin, settle: Settle) -> Settle {
    Settle { origin, ..settle }
}

fn batch(number: u64, settles: Vec<Settle>) -> Batch {
    Batch { tag: "t:acme".into(), incarnation: 77, number, settles, usage: Vec::new() }
}

async fn admit(rig: &impl Rig, admit: &Admit) -> Verdict {
    rig.commands().admit(admit).await.expect("the store answers")
}

/// Admits; answers what is left.
async fn admitted(rig: &impl Rig, one: &Admit) -> Vec<u64> {
    let verdict = admit(rig, one).await;
    let Verdict::Admitted(left) = verdict else { unreachable!("not admitted: {verdict:?}") };
    left
}

async fn refused(rig: &impl Rig, one: &Admit) -> Refusal {
    let verdict = admit(rig, one).await;
    let Verdict::Refused(refusal) = verdict else { unreachable!("not refused: {verdict:?}") };
    refusal
}

/// Applies settles under a number that no batch had.
async fn apply(rig: &impl Rig, settles: Vec<Settle>) {
    static NUMBER: AtomicU64 = AtomicU64::new(1_000);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let applied = rig.commands().apply(&batch(number, settles)).await;
    assert_eq!(applied, Ok(Applied::Now));
}

async fn used(rig: &impl Rig, scope: &str, rule: Rule) -> u64 {
    let standing = rig.commands().standing(&"t:acme".into(), &[(scope.into(), rule)]).await;
    standing.expect("the store answers")[0].used
}

async fn usage(rig: &impl Rig) -> Vec<(Row, Counts)> {
    let hour = rig.now().await / 3_600_000;
    // The hour may end while the test runs.
    let rows = rig.commands().usage(&"t:acme".into(), hour.saturating_sub(1)..hour + 1).await;
    rows.expect("the store answers").into_iter().map(|(_, row, counts)| (row, counts)).collect()
}

async fn renew(rig: &impl Rig, admit: &Admit) {
    let lease = Renew {
        id: admit.id,
        scopes: admit.scopes.clone(),
        charges: admit.charges.clone(),
        member: admit.member,
    };
    rig.commands().renew(&admit.tag, &[lease]).await.expect("the store answers");
}

async fn lapsed(rig: &impl Rig) -> Vec<AttemptId> {
    let lapsed = rig.commands().lapsed(&"t:acme".into(), 100).await.expect("the store answers");
    lapsed.into_iter().map(|member| member.id).collect()
}

// === limits ===

pub(crate) async fn a_window_admits_its_limit_and_says_when_more_fits(rig: &impl Rig) {
    for left in [2, 1, 0] {
        assert_eq!(admitted(rig, &plain(&[of(window(3), 1)])).await, [left]);
    }
    let refusal = refused(rig, &plain(&[of(window(3), 1)])).await;
    let wait = refusal.wait_ms.expect("it fits later");
    assert_eq!((refusal.charge, refusal.left), (0, 0));
    assert!((WINDOW_MS..=WINDOW_MS + SLOT_MS).contains(&wait), "{wait}");
    rig.pass(wait).await;
    assert_eq!(admitted(rig, &plain(&[of(window(3), 3)])).await, [0]);
}

pub(crate) async fn a_bucket_refills_and_says_when_more_fits(rig: &impl Rig) {
    let bucket = rule(5, Algorithm::Bucket { window_ms: 1_000, burst: 20 }, 10);
    assert_eq!(admitted(rig, &plain(&[of(bucket, 20)])).await, [0]);
    let wait = refused(rig, &plain(&[of(bucket, 5)])).await.wait_ms.expect("it fits later");
    // Half of a window, but for what has flowed out since.
    assert!((1..=500).contains(&wait), "{wait}");
    rig.pass(wait).await;
    admitted(rig, &plain(&[of(bucket, 5)])).await;
    assert!(used(rig, "tenant", bucket).await <= 20);
    rig.pass(3_000).await;
    assert_eq!(used(rig, "tenant", bucket).await, 0);
}

pub(crate) async fn a_budget_counts_in_its_period_only(rig: &impl Rig) {
    let now = rig.now().await;
    let (this, next) = (now - 1_000..now + 2_000, now + 2_000..now + 60_000);
    assert_eq!(admitted(rig, &member(&[of(budget(this.clone(), 100), 90)])).await, [10]);
    let refusal = refused(rig, &member(&[of(budget(this.clone(), 100), 11)])).await;
    assert_eq!(refusal.left, 10);
    assert!((1..=2_000).contains(&refusal.wait_ms.expect("the next period")));
    let early = member(&[of(budget(next.clone(), 100), 1)]);
    assert_eq!(admit(rig, &early).await, Verdict::StalePeriod);
    rig.pass(2_000).await;
    let stale = member(&[of(budget(this, 100), 1)]);
    assert_eq!(admit(rig, &stale).await, Verdict::StalePeriod);
    assert_eq!(admitted(rig, &member(&[of(budget(next, 100), 11)])).await, [89]);
}

pub(crate) async fn a_budget_whose_period_was_redefined_keeps_what_was_spent(rig: &impl Rig) {
    let now = rig.now().await;
    admitted(rig, &member(&[of(budget(now - 1..now + 60_000, 100), 90)])).await;
    let longer = budget(now - 1_000..now + 120_000, 100);
    assert_eq!(refused(rig, &member(&[of(longer, 11)])).await.left, 10);
    assert_eq!(admitted(rig, &member(&[of(longer, 10)])).await, [0]);
}

pub(crate) async fn permits_are_as_many_as_the_limit_and_come_back(rig: &impl Rig) {
    let (one, two) = (member(&[of(permits(2), 1)]), member(&[of(permits(2), 1)]));
    assert_eq!(admitted(rig, &one).await, [1]);
    assert_eq!(admitted(rig, &two).await, [0]);
    let refusal = refused(rig, &member(&[of(permits(2), 1)])).await;
    assert_eq!(refusal, Refusal { charge: 0, wait_ms: None, left: 0 });
    assert_eq!(used(rig, "tenant", permits(2)).await, 2);
    apply(rig, vec![truth(&one, &[0])]).await;
    assert_eq!(used(rig, "tenant", permits(2)).await, 1);
    assert_eq!(admitted(rig, &member(&[of(permits(2), 1)])).await, [0]);
    apply(rig, vec![truth(&one, &[0])]).await;
    assert_eq!(used(rig, "tenant", permits(2)).await, 2, "given back once only");
}

pub(crate) async fn permits_of_requests_outlive_their_attempts(rig: &impl Rig) {
    let one = member(&[of_request(permits(1)), of(hour(100), 10)]);
    admitted(rig, &one).await;
    apply(rig, vec![truth(&one, &[1, 10])]).await;
    assert_eq!(used(rig, "tenant", permits(1)).await, 1);
    // Released under the id of an attempt that there is none of.
    let release = Settle { id: AttemptId { attempt: 0, ..one.id }, ..truth(&one, &[0]) };
    apply(rig, vec![release]).await;
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    assert_eq!(used(rig, "tenant", hour(100)).await, 10);
}

pub(crate) async fn permits_of_a_holder_that_died_come_back_with_its_lease(rig: &impl Rig) {
    admitted(rig, &member(&[of(permits(1), 1)])).await;
    rig.pass(LEASE_MS - 2_000).await;
    refused(rig, &member(&[of(permits(1), 1)])).await;
    rig.pass(2_000).await;
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    assert_eq!(admitted(rig, &member(&[of(permits(1), 1)])).await, [0]);
    assert_eq!(used(rig, "tenant", permits(1)).await, 1);
}

pub(crate) async fn a_renewed_permit_is_registered_again_even_above_the_limit(rig: &impl Rig) {
    let cut_off = member(&[of(permits(1), 1)]);
    admitted(rig, &cut_off).await;
    rig.pass(LEASE_MS).await;
    let other = member(&[of(permits(1), 1)]);
    admitted(rig, &other).await;
    renew(rig, &cut_off).await;
    assert_eq!(used(rig, "tenant", permits(1)).await, 2);
    refused(rig, &member(&[of(permits(1), 1)])).await;
    apply(rig, vec![truth(&other, &[0])]).await;
    refused(rig, &member(&[of(permits(1), 1)])).await;
    apply(rig, vec![truth(&cut_off, &[0])]).await;
    admitted(rig, &member(&[of(permits(1), 1)])).await;
}

pub(crate) async fn a_refusal_by_any_limit_changes_none(rig: &impl Rig) {
    let now = rig.now().await;
    let month = budget(now - 1..now + 3_600_000, 100);
    let charges = |tokens: u64, cost: u64| {
        [of(hour(1_000), tokens), of(permits(1), 1), of_key(hour(50), tokens), of(month, cost)]
    };
    admitted(rig, &member(&charges(30, 30))).await;
    let standing = async || {
        let scopes = [("tenant", hour(1_000)), ("tenant", permits(1)), ("key=a", hour(50))];
        let mut all = vec![used(rig, "tenant", month).await];
        for (scope, rule) in scopes {
            all.push(used(rig, scope, rule).await);
        }
        all
    };
    assert_eq!(standing().await, [30, 30, 1, 30]);
    assert_eq!(refused(rig, &member(&charges(20, 20))).await.charge, 1);
    let without_permit = |tokens: u64, cost: u64| {
        let all = charges(tokens, cost);
        member(&[all[0], all[2], all[3]])
    };
    assert_eq!(refused(rig, &without_permit(21, 20)).await.charge, 1);
    assert_eq!(refused(rig, &without_permit(20, 71)).await.charge, 2);
    assert_eq!(standing().await, [30, 30, 1, 30]);
    assert_eq!(admitted(rig, &without_permit(20, 70)).await, [950, 0, 0]);
}

pub(crate) async fn what_is_above_a_limit_never_fits_and_a_limit_of_zero_refuses_all(
    rig: &impl Rig,
) {
    let now = rig.now().await;
    let bucket = |limit| rule(5, Algorithm::Bucket { window_ms: 1_000, burst: limit }, limit);
    for limit in [hour, window, bucket, |limit| rule(6, Algorithm::Permits, limit)] {
        let refusal = refused(rig, &plain(&[of(limit(0), 1)])).await;
        assert_eq!((refusal.wait_ms, refusal.left), (None, 0));
    }
    for rule in [hour(5), window(5), bucket(5), budget(now - 1..now + 60_000, 5)] {
        let refusal = refused(rig, &plain(&[of(rule, 6)])).await;
        assert_eq!((refusal.wait_ms, refusal.left), (None, 5), "{rule:?}");
    }
}

pub(crate) async fn tags_and_scopes_and_limits_count_apart(rig: &impl Rig) {
    admitted(rig, &plain(&[of(hour(1), 1)])).await;
    refused(rig, &plain(&[of(hour(1), 1)])).await;
    admitted(rig, &plain(&[of_key(hour(1), 1)])).await;
    admitted(rig, &plain(&[of(window(1), 1)])).await;
    let elsewhere = Admit { tag: "t:globex".into(), ..plain(&[of(hour(1), 1)]) };
    admitted(rig, &elsewhere).await;
}

// === ids and deadlines ===

pub(crate) async fn a_resent_admission_is_a_duplicate_and_counts_once(rig: &impl Rig) {
    let deadline = rig.now().await + 60_000;
    for one in [member(&[of(hour(10), 6)]), plain(&[of_key(hour(10), 6)])] {
        let scope = if one.member { "tenant" } else { "key=a" };
        assert_eq!(rig.admit_by(&one, deadline).await, Verdict::Admitted(vec![4]));
        // It would not fit again; that it was admitted is what matters.
        assert_eq!(rig.admit_by(&one, deadline).await, Verdict::Duplicate);
        assert_eq!(used(rig, scope, hour(10)).await, 6);
    }
    let small = member(&[of(hour(10), 1)]);
    rig.admit_by(&small, deadline).await;
    assert_eq!(rig.admit_by(&small, deadline).await, Verdict::Duplicate);
    assert_eq!(used(rig, "tenant", hour(10)).await, 7);
}

pub(crate) async fn a_late_admission_changes_nothing(rig: &impl Rig) {
    let deadline = rig.now().await;
    rig.pass(5).await;
    let late = member(&[of(hour(10), 6), of(permits(1), 1)]);
    assert_eq!(rig.admit_by(&late, deadline).await, Verdict::Late);
    assert_eq!(used(rig, "tenant", hour(10)).await, 0);
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    let deadline = rig.now().await + 60_000;
    assert_eq!(rig.admit_by(&late, deadline).await, Verdict::Admitted(vec![4, 0]));
}

pub(crate) async fn an_id_stays_known_until_its_deadline_though_it_is_settled(rig: &impl Rig) {
    let deadline = rig.now().await + 2_000;
    let one = member(&[of(hour(10), 6), of(permits(1), 1)]);
    rig.admit_by(&one, deadline).await;
    apply(rig, vec![truth(&one, &[0, 0])]).await;
    // A copy that was under way all the time.
    assert_eq!(rig.admit_by(&one, deadline).await, Verdict::Duplicate);
    assert_eq!(used(rig, "tenant", hour(10)).await, 0);
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    rig.pass(2_001).await;
    assert_eq!(rig.admit_by(&one, deadline).await, Verdict::Late);
}

// === settling ===

pub(crate) async fn a_settle_corrects_to_the_truth_once(rig: &impl Rig) {
    let now = rig.now().await;
    let month = budget(now - 1..now + 3_600_000, 1_000);
    let bucket = rule(5, Algorithm::Bucket { window_ms: 3_600_000, burst: 1_000 }, 1_000);
    let one = member(&[of(hour(1_000), 100), of(month, 100), of_key(bucket, 100)]);
    let other = member(&[of(hour(1_000), 100), of(month, 100), of_key(bucket, 100)]);
    admitted(rig, &one).await;
    admitted(rig, &other).await;
    // One used less, the other more; the one is told three times.
    apply(rig, vec![truth(&one, &[40, 30, 20])]).await;
    apply(rig, vec![truth(&one, &[0, 0, 0]), truth(&other, &[150, 160, 170])]).await;
    apply(rig, vec![truth(&one, &[40, 30, 20])]).await;
    assert_eq!(used(rig, "tenant", hour(1_000)).await, 190);
    assert_eq!(used(rig, "tenant", month).await, 190);
    let level = used(rig, "key=a", bucket).await;
    assert!((185..=190).contains(&level), "{level}");
}

pub(crate) async fn a_debt_is_worked_off_before_anything_is_admitted(rig: &impl Rig) {
    let one = member(&[of(window(10), 5)]);
    admitted(rig, &one).await;
    apply(rig, vec![truth(&one, &[25])]).await;
    assert_eq!(used(rig, "tenant", window(10)).await, 25);
    let refusal = refused(rig, &plain(&[of(window(10), 1)])).await;
    assert_eq!(refusal.left, 0);
    rig.pass(refusal.wait_ms.expect("it fits later")).await;
    admitted(rig, &plain(&[of(window(10), 10)])).await;
}

pub(crate) async fn a_cancelled_admission_gives_everything_back(rig: &impl Rig) {
    let requests = Charge { metric: Metric::Requests, ..of(hour(1), 1) };
    let one = member(&[requests, of_key(hour(100), 60), of_request(permits(1))]);
    admitted(rig, &one).await;
    apply(rig, vec![truth(&one, &[0, 0, 0])]).await;
    assert_eq!(used(rig, "tenant", hour(1)).await, 0);
    assert_eq!(used(rig, "key=a", hour(100)).await, 0);
    let again = member(&[requests, of_key(hour(100), 60), of_request(permits(1))]);
    assert_eq!(admitted(rig, &again).await, [0, 40, 0]);
}

pub(crate) async fn a_refund_of_a_slot_that_left_is_dropped_and_an_excess_counts_now(
    rig: &impl Rig,
) {
    let (less, more) = (member(&[of(window(100), 10)]), member(&[of(window(100), 10)]));
    admitted(rig, &less).await;
    admitted(rig, &more).await;
    rig.pass(WINDOW_MS + 2 * SLOT_MS).await;
    admitted(rig, &plain(&[of(window(100), 3)])).await;
    apply(rig, vec![truth(&less, &[0])]).await;
    assert_eq!(used(rig, "tenant", window(100)).await, 3);
    apply(rig, vec![truth(&more, &[15])]).await;
    assert_eq!(used(rig, "tenant", window(100)).await, 8);
}

pub(crate) async fn a_batch_is_applied_once_and_an_older_one_never(rig: &impl Rig) {
    let one = Counts { requests: 1, ..Counts::default() };
    let hour = rig.now().await / 3_600_000;
    let numbered = |number| Batch { usage: vec![(hour, row("a"), one)], ..batch(number, vec![]) };
    let outcomes =
        [(5, Applied::Now), (5, Applied::Before), (4, Applied::Before), (6, Applied::Now)];
    for (number, outcome) in outcomes {
        assert_eq!(rig.commands().apply(&numbered(number)).await, Ok(outcome), "{number}");
    }
    let other = Batch { incarnation: 78, ..numbered(1) };
    assert_eq!(rig.commands().apply(&other).await, Ok(Applied::Now));
    let three = Counts { requests: 3, ..Counts::default() };
    assert_eq!(usage(rig).await, [(row("a"), three)]);
}

pub(crate) async fn what_was_admitted_elsewhere_is_charged_without_a_check(rig: &impl Rig) {
    let now = rig.now().await;
    let month = budget(now - 1..now + 3_600_000, 10);
    let one = member(&[of(hour(10), 0), of(month, 0), of(permits(1), 0)]);
    apply(rig, vec![from(Origin::Elsewhere, truth(&one, &[25, 7, 0]))]).await;
    assert_eq!(used(rig, "tenant", hour(10)).await, 25);
    assert_eq!(used(rig, "tenant", month).await, 7);
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    refused(rig, &plain(&[of(hour(10), 1)])).await;
}

// === top-ups ===

fn more(admit: &Admit, step: u8, amounts: &[u64]) -> TopUp {
    let Settle { id, scopes, charges, .. } = truth(admit, amounts);
    TopUp { tag: Arc::clone(&admit.tag), id, step, scopes, charges }
}

async fn top_up(rig: &impl Rig, more: &TopUp) -> Verdict {
    rig.commands().top_up(more).await.expect("the store answers")
}

pub(crate) async fn a_member_is_topped_up_once_a_step(rig: &impl Rig) {
    let one = member(&[of(hour(100), 10), of(permits(1), 1), of_key(hour(100), 10)]);
    admitted(rig, &one).await;
    let first = more(&one, 1, &[20, 0, 30]);
    assert_eq!(top_up(rig, &first).await, Verdict::Admitted(vec![70, 0, 60]));
    assert_eq!(top_up(rig, &first).await, Verdict::Duplicate);
    assert_eq!(top_up(rig, &more(&one, 2, &[1, 0, 0])).await, Verdict::Admitted(vec![69, 0, 0]));
    assert_eq!(used(rig, "tenant", hour(100)).await, 31);
    assert_eq!(used(rig, "key=a", hour(100)).await, 40);
    // All of it is what the truth is compared with.
    apply(rig, vec![truth(&one, &[12, 0, 45])]).await;
    assert_eq!(used(rig, "tenant", hour(100)).await, 12);
    assert_eq!(used(rig, "key=a", hour(100)).await, 45);
}

pub(crate) async fn a_top_up_that_does_not_fit_takes_nothing(rig: &impl Rig) {
    let one = member(&[of(hour(100), 10), of_key(hour(20), 10)]);
    admitted(rig, &one).await;
    let verdict = top_up(rig, &more(&one, 1, &[20, 20])).await;
    assert!(
        matches!(verdict, Verdict::Refused(Refusal { charge: 1, left: 10, .. })),
        "{verdict:?}"
    );
    assert_eq!(used(rig, "tenant", hour(100)).await, 10);
    // It was not this step's only try.
    assert_eq!(top_up(rig, &more(&one, 1, &[20, 10])).await, Verdict::Admitted(vec![70, 0]));
    let stranger = member(&[of(hour(100), 10), of_key(hour(20), 10)]);
    let verdict = top_up(rig, &more(&stranger, 1, &[1, 0])).await;
    assert!(matches!(verdict, Verdict::Refused(Refusal { wait_ms: None, .. })), "{verdict:?}");
    let skipped = top_up(rig, &more(&one, 3, &[1, 0])).await;
    assert!(matches!(skipped, Verdict::Refused(_)), "{skipped:?}");
    assert_eq!(used(rig, "tenant", hour(100)).await, 30);
}

// === lost nodes ===

fn billed(charges: &[Charge]) -> (Admit, Counts) {
    let estimate = Counts { requests: 1, input_tokens: 30, output_tokens: 20, ..Counts::default() };
    let bill = Some(Bill { row: row("a"), estimate });
    let lost = Counts { attempts: 1, estimated: 1, node_lost: 1, ..estimate };
    (Admit { bill, ..member(charges) }, lost)
}

pub(crate) async fn a_lost_member_is_settled_as_reserved_once(rig: &impl Rig) {
    let (one, lost) = billed(&[of(hour(100), 50), of(permits(1), 1)]);
    admitted(rig, &one).await;
    let verdict = top_up(rig, &more(&one, 1, &[5, 0])).await;
    assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
    let sweep = || vec![from(Origin::Lapsed, truth(&one, &[55, 0]))];
    apply(rig, sweep()).await;
    assert!(usage(rig).await.is_empty(), "its lease has not ended");
    assert!(lapsed(rig).await.is_empty());
    rig.pass(LEASE_MS).await;
    let found = rig.commands().lapsed(&one.tag, 100).await.expect("the store answers");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, &found[0].bill), (one.id, &one.bill));
    let amounts: Vec<_> = found[0].charges.iter().map(|charge| charge.amount).collect();
    assert_eq!((&amounts[..], &found[0].scopes), (&[55, 1][..], &one.scopes));
    apply(rig, sweep()).await;
    apply(rig, sweep()).await;
    assert!(lapsed(rig).await.is_empty());
    assert_eq!(used(rig, "tenant", hour(100)).await, 55);
    assert_eq!(used(rig, "tenant", permits(1)).await, 0);
    assert_eq!(usage(rig).await, [(row("a"), lost)]);
}

pub(crate) async fn a_truth_that_comes_late_takes_the_estimate_back(rig: &impl Rig) {
    let (one, lost) = billed(&[of(hour(100), 50)]);
    admitted(rig, &one).await;
    rig.pass(LEASE_MS).await;
    apply(rig, vec![from(Origin::Lapsed, truth(&one, &[50]))]).await;
    assert_eq!(usage(rig).await, [(row("a"), lost)]);
    for _ in 0..2 {
        apply(rig, vec![truth(&one, &[20])]).await;
    }
    assert_eq!(used(rig, "tenant", hour(100)).await, 20);
    assert_eq!(usage(rig).await, [(row("a"), Counts::default())]);
}

pub(crate) async fn a_renewed_member_does_not_lapse_and_a_settled_one_stays_gone(rig: &impl Rig) {
    let (lives, gone) = (member(&[of(hour(100), 10)]), member(&[of(hour(100), 10)]));
    admitted(rig, &lives).await;
    admitted(rig, &gone).await;
    apply(rig, vec![truth(&gone, &[10])]).await;
    rig.pass(LEASE_MS - 2_000).await;
    renew(rig, &lives).await;
    renew(rig, &gone).await;
    rig.pass(4_000).await;
    assert!(lapsed(rig).await.is_empty());
    rig.pass(LEASE_MS).await;
    assert_eq!(lapsed(rig).await, [lives.id]);
}

// === usage and changes ===

pub(crate) async fn usage_adds_up_by_row_and_hour(rig: &impl Rig) {
    let hour = rig.now().await / 3_600_000;
    let counts = Counts {
        requests: 1,
        attempts: 2,
        input_tokens: 3,
        output_tokens: 4,
        cached_tokens: 5,
        reasoning_tokens: 6,
        cost_micro_usd: 1 << 40,
        errors: 8,
        estimated: 9,
        node_lost: 10,
    };
    let rows = vec![
        (hour, row("a"), counts),
        (hour, row("b"), counts),
        (hour, row("a"), counts),
        (hour - 5, row("a"), counts),
    ];
    let told = Batch { usage: rows, ..batch(1, Vec::new()) };
    assert_eq!(rig.commands().apply(&told).await, Ok(Applied::Now));
    let mut twice = counts;
    twice.add(&counts);
    let mut rows = usage(rig).await;
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(rows, [(row("a"), twice), (row("b"), counts)]);
    let old = rig.commands().usage(&"t:acme".into(), hour - 6..hour - 4).await;
    assert_eq!(old, Ok(vec![(hour - 5, row("a"), counts)]));
}

pub(crate) async fn another_limit_keeps_the_count(rig: &impl Rig) {
    admitted(rig, &plain(&[of(hour(10), 8)])).await;
    assert_eq!(refused(rig, &plain(&[of(hour(5), 1)])).await.left, 0);
    assert_eq!(admitted(rig, &plain(&[of(hour(20), 2)])).await, [10]);
}

pub(crate) async fn another_window_starts_from_what_was_used(rig: &impl Rig) {
    admitted(rig, &plain(&[of(hour(10), 8)])).await;
    let id = hour(10).id;
    let longer = Rule { algorithm: Algorithm::Window { slot_ms: 120_000, slots: 30 }, ..hour(10) };
    let bucket = Algorithm::Bucket { window_ms: 3_600_000, burst: 10 };
    let bucket = Rule { id, algorithm: bucket, limit: 10 };
    for other in [longer, bucket] {
        assert_eq!(used(rig, "tenant", other).await, 8);
        assert_eq!(refused(rig, &plain(&[of(other, 3)])).await.left, 2);
    }
    admitted(rig, &plain(&[of(bucket, 1)])).await;
    assert_eq!(used(rig, "tenant", hour(10)).await, 9);
}
