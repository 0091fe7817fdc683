//! The node's one queue of what is told to the store without waiting: truths of attempts, released
//! permits, usage, and leases that go on.
//!
//! It has a thread of its own, so that a busy worker delays no release and a drain finds everything
//! in one place. What is to be sent when is decided by `Book`, which tags hold leases by `Leases`;
//! here they are only carried out. A store that does not answer makes entries wait, never vanish:
//! a batch is sent again, under its number, until it is acknowledged. What happens at the bounds is
//! said in `book`.

mod book;
mod gate;
mod leases;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::link::{Away, Commands};
use crate::domain::{AttemptId, Random};
use crate::policy::limit::{Admit, Applied, Batch, Counts, Renew, Row, Settle};
use crate::telemetry::StoreMetrics;
use book::Book;
use gate::Gate;
use leases::Leases;

/// Commands under way at once, on one connection.
const AT_ONCE: usize = 64;

/// What is told about an attempt that is over: its truth, its usage, or both.
#[derive(Debug)]
pub struct Entry {
    /// Whose state.
    pub tag: Arc<str>,
    /// The truth.
    pub settle: Option<Settle>,
    /// The usage, with its hour.
    pub usage: Option<(u64, Row, Counts)>,
}

/// How soon an entry is to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// A permit that somebody may wait for.
    Release,
    /// A correction.
    Settle,
    /// The admission was given up without an answer and may still be executed, so the entry waits
    /// until that can no longer happen.
    GivenUp,
}

/// What a ledger must know.
#[derive(Clone, Copy, Debug)]
pub struct LedgerConfig {
    /// Which run of a node this is.
    pub incarnation: u64,
    /// How long a lease lives; each is renewed three times as often.
    pub lease_ttl: Duration,
    /// For how long an admission that was given up may still be executed.
    pub given_up: Duration,
    /// The longest that one attempt waits for what another one gave back.
    pub flushed: Duration,
}

/// The queue and its thread. Dropped, the thread ends at once; what is still queued is lost, so
/// `close` comes first.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: LedgerConfig,
    book: Mutex<Book>,
    leases: Mutex<Leases>,
    gate: Mutex<Gate>,
    /// Whether the gate has to be asked: nothing waits for a lock while all is well.
    guarded: AtomicBool,
    /// There is something to do earlier than was known.
    wake: Notify,
    /// A batch was acknowledged.
    acked: Notify,
    stop: AtomicBool,
    started: Instant,
    metrics: StoreMetrics,
}

/// A command, and what it came to.
enum Job {
    Batch(Arc<Batch>),
    Renew(Why, Arc<str>, Vec<Renew>),
}

enum Done {
    Batch(Arc<str>, Result<Applied, Away>),
    Renewed(Why, Arc<str>, Result<(), Away>),
}

/// Why leases are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is time.
    Routine,
    /// The store may not have them.
    Untold,
}

// === impl Ledger ===

impl Ledger {
    /// Starts the thread. `link` is called on it, inside its runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start<C: Commands>(
        config: LedgerConfig,
        metrics: StoreMetrics,
        link: impl FnOnce() -> C + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(config, metrics));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let on_thread = Arc::clone(&shared);
        let serve = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move { on_thread.run(&link()).await });
        };
        thread::Builder::new().name("ledger".into()).spawn(serve)?;
        Ok(Self { shared })
    }

    /// Takes an entry over. Never waits.
    pub fn post(&self, entry: Entry, haste: Haste) {
        let now = self.shared.now();
        let mut book = self.shared.book();
        let dropped = book.dropped();
        let earlier = book.post(entry, haste, now);
        self.shared.metrics.dropped(book.dropped() - dropped);
        self.shared.metrics.queued(book.waiting());
        drop(book);
        if earlier {
            self.shared.wake.notify_one();
        }
    }

    /// Waits until all that was said so far about a tag is in force, but what waits for an
    /// admission that was given up; for a bounded time.
    pub async fn flushed(&self, tag: &Arc<str>) {
        if self.is_away() {
            // It would be waited for in vain.
            return;
        }
        let ticket = {
            let mut book = self.shared.book();
            let ticket = book.ticket();
            book.hurry(tag, self.shared.now());
            ticket
        };
        self.shared.wake.notify_one();
        let deadline = Instant::now() + self.shared.config.flushed;
        self.shared.until(deadline, |book| book.is_done(tag, ticket)).await;
    }

    /// These leases go on until they are `closed`. `known` says whether the store may know of them.
    pub fn opened(&self, id: AttemptId, admits: &Arc<[Admit]>, known: bool) {
        self.shared.leases().open(id, admits, known);
    }

    /// There are leases of this tag that the store never had: they are registered as soon as it
    /// answers.
    pub fn unregistered(&self, tag: &Arc<str>) {
        let now = self.shared.now();
        let mut gate = self.shared.gate();
        let wanted = gate.unregistered(tag, now);
        self.shared.guarded.store(true, Ordering::Release);
        if wanted.hold {
            // Under the lock of the gate: the thread may be done with the tag a moment later.
            self.shared.book().hold(tag);
        }
        if wanted.new {
            self.shared.wake.notify_one();
        }
    }

    /// Whether nothing new may be asked of this tag, because leases that are held there have to be
    /// registered first.
    #[must_use]
    pub fn is_shut(&self, tag: &str) -> bool {
        self.shared.guarded.load(Ordering::Acquire)
            && self.shared.gate().is_shut(tag, self.shared.now())
    }

    /// Whether the store did not answer what was sent last.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared.guarded.load(Ordering::Acquire) && self.shared.gate().is_away()
    }

    /// These leases do not go on: they are settled or released by an entry that is posted next.
    /// Answers whether there is anything to release: whether the store may know of them.
    pub fn closed(&self, id: AttemptId) -> bool {
        self.shared.leases().close(id)
    }

    /// Sends all that is queued, at most until the time is over, and ends the thread. Answers how
    /// many entries are left.
    pub async fn close(&self, limit: Duration) -> usize {
        self.shared.book().hurry_all(self.shared.now());
        self.shared.wake.notify_one();
        self.shared.until(Instant::now() + limit, |book| book.waiting() == 0).await;
        self.shared.end();
        self.shared.book().waiting()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.end();
    }
}

// === impl Shared ===

impl Shared {
    fn new(config: LedgerConfig, metrics: StoreMetrics) -> Self {
        let given_up_ms = u64::try_from(config.given_up.as_millis()).unwrap_or(u64::MAX);
        Self {
            config,
            book: Mutex::new(Book::new(config.incarnation, given_up_ms)),
            leases: Mutex::default(),
            gate: Mutex::default(),
            guarded: AtomicBool::new(false),
            wake: Notify::new(),
            acked: Notify::new(),
            stop: AtomicBool::new(false),
            started: Instant::now(),
            metrics,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until the book says so, or until the time is over.
    async fn until(&self, deadline: Instant, reached: impl Fn(&Book) -> bool) {
        loop {
            let mut acked = std::pin::pin!(self.acked.notified());
            // Whoever is told must be waiting before the book is looked at.
            acked.as_mut().enable();
            let over = reached(&self.book());
            if over || timeout_at(deadline, acked).await.is_err() {
                return;
            }
        }
    }

    /// Carries out what the book and the leases want, until it is to stop.
    async fn run<C: Commands>(&self, link: &C) {
        let random = Random::new();
        let renewal = self.config.lease_ttl / 3;
        let mut next_renewal = Instant::now() + renewal;
        let mut jobs = FuturesUnordered::new();
        while !self.stop.load(Ordering::Acquire) {
            if Instant::now() >= next_renewal {
                next_renewal = Instant::now() + renewal;
                let renewals = self.leases().renewals(None);
                for (tag, leases) in renewals {
                    self.book().hold(&tag);
                    jobs.push(carry_out(link, Job::Renew(Why::Routine, tag, leases)));
                }
            }
            let untold = self.untold(AT_ONCE.saturating_sub(jobs.len()));
            jobs.extend(untold.into_iter().map(|job| carry_out(link, job)));
            let room = AT_ONCE.saturating_sub(jobs.len());
            let (batches, due) = {
                let mut book = self.book();
                let leases = self.leases();
                let batches = book.take(self.now(), room, |id| leases.holds(id));
                (batches, book.next_due())
            };
            let full = batches.len() == room;
            jobs.extend(batches.into_iter().map(|batch| carry_out(link, Job::Batch(batch))));
            // With no room left, the next answer makes some.
            let due = due.filter(|_| !full).map(|due| self.started + Duration::from_millis(due));
            let untold = self.gate().next_due().filter(|_| jobs.len() < AT_ONCE);
            let untold = untold.map(|due| self.started + Duration::from_millis(due));
            let due = due.into_iter().chain(untold).fold(next_renewal, Instant::min);
            tokio::select! {
                () = self.wake.notified() => {}
                Some(done) = jobs.next() => self.done(&done, &random),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Commands that tell of the leases which the store may not have. Those of a tag where nothing
    /// is held any more need not be told.
    fn untold(&self, room: usize) -> Vec<Job> {
        if !self.guarded.load(Ordering::Acquire) {
            return Vec::new();
        }
        let due = self.gate().due(self.now(), room);
        let mut jobs = Vec::new();
        for tag in due {
            self.gate().telling(&tag);
            let renewals = self.leases().renewals(Some(&tag));
            if renewals.is_empty() {
                // Unless something was opened just now: then it is told at once.
                if self.gate().told(&tag, true, self.now(), 0) {
                    self.book().let_go(&tag);
                }
                continue;
            }
            {
                let mut gate = self.gate();
                if gate.expect(&tag, renewals.len()) {
                    self.book().hold(&tag);
                }
            }
            let told = |(tag, leases)| Job::Renew(Why::Untold, tag, leases);
            jobs.extend(renewals.into_iter().map(told));
        }
        jobs
    }

    /// A command was answered, or it was not.
    fn heard(&self, answered: bool) {
        let mut gate = self.gate();
        gate.heard(answered);
        self.guarded.store(!(answered && gate.is_empty()), Ordering::Release);
    }

    /// Leases were renewed, or they were not.
    fn renewed(&self, why: Why, tag: &Arc<str>, answered: bool, random: u64) {
        let now = self.now();
        if why == Why::Routine {
            self.heard(answered);
            let ttl = u64::try_from(self.config.lease_ttl.as_millis()).unwrap_or(u64::MAX >> 1);
            // What was renewed a third of a lease ago ends when the other two are over.
            let lapse = now.saturating_add(ttl - ttl / 3);
            let kept = !answered && self.gate().not_renewed(tag, now, lapse).hold;
            self.guarded.fetch_or(!answered, Ordering::AcqRel);
            // What held it until now may hold it on the gate's behalf.
            if !kept {
                self.book().let_go(tag);
            }
            return;
        }
        let mut gate = self.gate();
        gate.heard(answered);
        let done = gate.told(tag, answered, now, random);
        self.guarded.store(gate.is_away() || !gate.is_empty(), Ordering::Release);
        drop(gate);
        if done {
            self.book().let_go(tag);
        }
    }

    fn done(&self, done: &Done, random: &Random) {
        if let Done::Renewed(why, tag, renewed) = done {
            self.renewed(*why, tag, renewed.is_ok(), random.next_u64());
            self.metrics.batch(if renewed.is_ok() { "renewed" } else { "not_renewed" });
            return;
        }
        let now = self.now();
        if let Done::Batch(_, applied) = done {
            self.heard(applied.is_ok());
        }
        let mut book = self.book();
        match done {
            Done::Batch(tag, Ok(_)) => {
                book.acknowledged(tag, now);
                self.metrics.queued(book.waiting());
                drop(book);
                self.metrics.batch("applied");
                self.acked.notify_waiters();
            }
            Done::Batch(tag, Err(Away)) => {
                book.failed(tag, now, random.next_u64());
                self.metrics.batch("failed");
            }
            Done::Renewed(..) => {}
        }
    }
}

async fn carry_out<C: Commands>(link: &C, job: Job) -> Done {
    match job {
        Job::Batch(batch) => {
            let applied = link.apply(&batch).await;
            Done::Batch(Arc::clone(&batch.tag), applied)
        }
        Job::Renew(why, tag, leases) => {
            let renewed = link.renew(&tag, &leases).await;
            Done::Renewed(why, tag, renewed)
        }
    }
}

#[cfg(test)]
mod tests;
