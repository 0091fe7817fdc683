//! What the parts of a node know of its place in the fleet: how many nodes live, what time it is in
//! Redis, whether the keys may be touched, and which tags this node has put members into.
//!
//! The tick writes it; workers and the ledger read it, and note the tags that they use. A tag is
//! listed in the registry before, or together with, the first admission there, so that whoever
//! sweeps after this node knows where to look.

mod tags;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tags::Tags;

pub use tags::Change;

/// A node's place in its fleet. One for each node, shared by its threads.
#[derive(Debug)]
pub struct Membership {
    incarnation: u64,
    node_ttl: Duration,
    live: AtomicU32,
    rank: AtomicU32,
    may_touch: AtomicBool,
    started: Instant,
    /// Redis time and when it was that.
    clock: Mutex<Option<(u64, Instant)>>,
    tags: Mutex<Tags>,
}

impl Membership {
    /// A node of which nobody knows yet: it counts itself, and touches no keys until it is told
    /// that it may.
    #[must_use]
    pub fn new(incarnation: u64, node_ttl: Duration) -> Self {
        Self {
            incarnation,
            node_ttl,
            live: AtomicU32::new(1),
            rank: AtomicU32::new(0),
            may_touch: AtomicBool::new(false),
            started: Instant::now(),
            clock: Mutex::new(None),
            tags: Mutex::default(),
        }
    }

    /// Which run of a node this is.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// After this silence a node is lost.
    #[must_use]
    pub const fn node_ttl(&self) -> Duration {
        self.node_ttl
    }

    /// Living nodes as last known, this one included: at least 1. Kept while Redis is away.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed).max(1)
    }

    /// This node's place among them, from 0, as last known: no two have the same while they know the
    /// same nodes.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank.load(Ordering::Relaxed)
    }

    /// Whether the keys are of a shape that this build knows; false until that is known.
    #[must_use]
    pub fn may_touch(&self) -> bool {
        self.may_touch.load(Ordering::Acquire)
    }

    /// The keys may be touched from now on, or no more.
    pub fn set_may_touch(&self, may: bool) {
        self.may_touch.store(may, Ordering::Release);
    }

    /// Redis time in ms as the last tick told it, once one has.
    #[must_use]
    pub fn now_ms(&self) -> Option<u64> {
        let (told, at) = (*locked(&self.clock))?;
        Some(told + u64::try_from(at.elapsed().as_millis()).unwrap_or(0))
    }

    /// What a tick told: how many live, this one's place where it was asked for, and what time it
    /// was when the answer came.
    pub fn ticked(&self, live: u64, rank: Option<u32>, now_ms: u64) {
        self.live.store(u32::try_from(live).unwrap_or(u32::MAX), Ordering::Relaxed);
        if let Some(rank) = rank {
            self.rank.store(rank, Ordering::Relaxed);
        }
        *locked(&self.clock) = Some((now_ms, Instant::now()));
    }

    /// This tag is used now. True: it is not listed yet.
    #[must_use]
    pub fn uses(&self, tag: &Arc<str>) -> bool {
        let now = self.since_start();
        locked(&self.tags).uses(tag, now)
    }

    /// What the next tick has to say about tags, at most so many of each kind.
    #[must_use]
    pub fn change(&self, most: usize) -> Change {
        locked(&self.tags).change(most)
    }

    /// The registry knows of these changes now.
    pub fn acknowledge(&self, change: &Change) {
        locked(&self.tags).acknowledge(change);
    }

    /// The registry knows nothing of this node: all tags are to be listed again.
    pub fn relist(&self) {
        locked(&self.tags).relist();
    }

    /// The next tags to look after, at most so many; each comes again when all others have.
    #[must_use]
    pub fn look_after(&self, most: usize) -> Vec<Arc<str>> {
        locked(&self.tags).look_after(most)
    }

    /// Nothing of a lost lease is left under this tag. If it was not used for so long, it is taken
    /// off the list.
    pub fn is_clean(&self, tag: &Arc<str>, unused: Duration) {
        let before = self.since_start().checked_sub(unused);
        if let Some(before) = before {
            locked(&self.tags).leave(tag, before);
        }
    }

    /// How many tags are used.
    #[must_use]
    pub fn tags(&self) -> usize {
        locked(&self.tags).len()
    }

    fn since_start(&self) -> Duration {
        self.started.elapsed()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
