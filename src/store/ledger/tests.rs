use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use super::*;
use crate::domain::RequestId;
use crate::policy::limit::{
    Algorithm, Charge, Degraded, Holder, Lapsed, LimitId, Metric, Origin, Rule, Standing, TopUp,
    Verdict,
};

/// A store that can be away, that remembers what it applied, and that may apply a batch although
/// its answer is lost.
#[derive(Default)]
struct Far {
    /// Of each call whether it is executed, and whether its answer arrives; then all is well.
    script: RefCell<Vec<(bool, bool)>>,
    last: RefCell<HashMap<Arc<str>, u64>>,
    applied: RefCell<Vec<(Arc<str>, usize, i64)>>,
    renewed: RefCell<Vec<(AttemptId, bool, usize)>>,
}

impl Commands for Far {
    async fn admit(&self, _: &Admit) -> Result<Verdict, Away> {
        Err(Away)
    }

    async fn top_up(&self, _: &TopUp) -> Result<Verdict, Away> {
        Err(Away)
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, Away> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (executed, answered) = self.script.borrow_mut().pop().unwrap_or((true, true));
        let mut outcome = Applied::Before;
        if executed {
            let mut last = self.last.borrow_mut();
            let last = last.entry(Arc::clone(&batch.tag)).or_default();
            if batch.number > *last {
                *last = batch.number;
                let requests = batch.usage.iter().map(|(_, _, counts)| counts.requests).sum();
                let entry = (Arc::clone(&batch.tag), batch.settles.len(), requests);
                self.applied.borrow_mut().push(entry);
                outcome = Applied::Now;
            }
        }
        if answered { Ok(outcome) } else { Err(Away) }
    }

    async fn renew(&self, _: &Arc<str>, leases: &[Renew]) -> Result<(), Away> {
        let leases = leases.iter().map(|lease| (lease.id, lease.member, lease.charges.len()));
        self.renewed.borrow_mut().extend(leases);
        Ok(())
    }

    async fn lapsed(&self, _: &Arc<str>, _: usize) -> Result<Vec<Lapsed>, Away> {
        Err(Away)
    }

    async fn standing(&self, _: &Arc<str>, _: &[(Arc<str>, Rule)]) -> Result<Vec<Standing>, Away> {
        Err(Away)
    }

    async fn usage(&self, _: &Arc<str>, _: Range<u64>) -> Result<Vec<(u64, Row, Counts)>, Away> {
        Err(Away)
    }
}

const CONFIG: LedgerConfig = LedgerConfig {
    incarnation: 1,
    lease_ttl: Duration::from_secs(10),
    given_up: Duration::from_millis(200),
    flushed: Duration::from_secs(5),
};

fn shared() -> Shared {
    Shared::new(CONFIG, StoreMetrics::default())
}

fn attempt(attempt: u8) -> AttemptId {
    AttemptId { request: RequestId::from_random([1; 16]), attempt }
}

fn entry(tag: &str) -> Entry {
    let settle = Settle { id: attempt(1), scopes: vec![], charges: vec![], origin: Origin::Member };
    let counts = Counts { requests: 1, ..Counts::default() };
    Entry { tag: tag.into(), settle: Some(settle), usage: Some((1, Row::default(), counts)) }
}

fn permit(holder: Holder) -> Charge {
    Charge {
        scope: 0,
        rule: Rule { id: LimitId(*b"permits!"), algorithm: Algorithm::Permits, limit: 1 },
        amount: 1,
        holder,
        metric: Metric::Concurrency,
        degraded: Degraded::LocalShare,
        hard: false,
    }
}

fn post(shared: &Shared, entry: Entry, haste: Haste) {
    let now = shared.now();
    if shared.book().post(entry, haste, now) {
        shared.wake.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_applied_once_through_lost_commands_and_lost_answers() {
    let (shared, far) = (shared(), Far::default());
    *far.script.borrow_mut() = vec![(true, true), (false, false), (true, false), (false, false)];
    let tell = async {
        for _ in 0..20 {
            post(&shared, entry("t:a"), Haste::Settle);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let all_in = |book: &Book| book.waiting() == 0;
        shared.until(Instant::now() + Duration::from_secs(60), all_in).await;
        shared.end();
    };
    tokio::join!(shared.run(&far), tell);
    let applied = far.applied.borrow();
    assert_eq!(applied.iter().map(|(_, settles, _)| settles).sum::<usize>(), 20);
    assert_eq!(applied.iter().map(|(_, _, requests)| requests).sum::<i64>(), 20);
    assert!(applied.len() < 12, "coalesced: {}", applied.len());
}

#[tokio::test(start_paused = true)]
async fn a_release_is_in_force_within_milliseconds() {
    let (shared, far) = (shared(), Far::default());
    let tell = async {
        // Long after the start, so that the thread sleeps.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let start = Instant::now();
        post(&shared, entry("t:a"), Haste::Release);
        shared.until(start + Duration::from_secs(1), |book| book.waiting() == 0).await;
        assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
        shared.end();
    };
    tokio::join!(shared.run(&far), tell);
    assert_eq!(far.applied.borrow().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_makes_nothing_wait_for_another_tag() {
    let (shared, far) = (shared(), Far::default());
    *far.script.borrow_mut() = vec![(false, false)];
    let tell = async {
        post(&shared, entry("t:away"), Haste::Release);
        tokio::time::sleep(Duration::from_millis(8)).await;
        post(&shared, entry("t:here"), Haste::Release);
        let here: Arc<str> = "t:here".into();
        let done = |book: &Book| book.is_done(&here, 2);
        shared.until(Instant::now() + Duration::from_secs(1), done).await;
        assert_eq!(far.applied.borrow().first().map(|(tag, _, _)| Arc::clone(tag)), Some(here));
        shared.until(Instant::now() + Duration::from_secs(5), |book| book.waiting() == 0).await;
        shared.end();
    };
    tokio::join!(shared.run(&far), tell);
    assert_eq!(far.applied.borrow().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_three_times_in_their_life_until_they_are_closed() {
    let (shared, far) = (shared(), Far::default());
    let admit = Admit {
        tag: "t:a".into(),
        id: attempt(1),
        scopes: vec!["tenant".into()],
        charges: vec![permit(Holder::Request), permit(Holder::Attempt)],
        member: true,
        bill: None,
    };
    let admits: Arc<[Admit]> = vec![admit].into();
    shared.leases().open(attempt(1), &admits, true);
    shared.leases().open(attempt(0), &admits, true);
    let tell = async {
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let mut renewed = std::mem::take(&mut *far.renewed.borrow_mut());
        renewed.sort_unstable();
        // The request's own permit goes on under its own id.
        assert_eq!(renewed, [(attempt(0), false, 1), (attempt(1), true, 1)]);
        shared.leases().close(attempt(1));
        tokio::time::sleep(Duration::from_millis(6_600)).await;
        let renewed = std::mem::take(&mut *far.renewed.borrow_mut());
        assert_eq!(renewed, [(attempt(0), false, 1); 2]);
        shared.leases().close(attempt(0));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(far.renewed.borrow().is_empty());
        shared.end();
    };
    tokio::join!(shared.run(&far), tell);
}

// The whole thing, with its thread.
#[tokio::test]
async fn closing_sends_what_waits_and_says_what_is_left() {
    let ledger = Ledger::start(CONFIG, StoreMetrics::default(), Far::default).expect("a thread");
    for tag in 0..50 {
        ledger.post(entry(&format!("t:{tag}")), Haste::Settle);
    }
    let tag: Arc<str> = "t:7".into();
    ledger.flushed(&tag).await;
    assert!(ledger.shared.book().is_done(&tag, 50));
    assert_eq!(ledger.close(Duration::from_secs(10)).await, 0);

    let away = || {
        let far = Far::default();
        far.script.borrow_mut().extend([(false, false); 1_000]);
        far
    };
    let ledger = Ledger::start(CONFIG, StoreMetrics::default(), away).expect("a thread");
    ledger.post(entry("t:a"), Haste::Settle);
    assert_eq!(ledger.close(Duration::from_millis(50)).await, 2);
}
