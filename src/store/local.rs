//! The twin in this process, behind locks that are held for a microsecond each.
//!
//! Tags are spread over shards, so that workers seldom meet. What is told is in force at once: there
//! is nothing to batch and nothing to resend. Whoever holds a lease here dies with the state itself,
//! so leases last for ever, unless the test says otherwise.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::Clock;
use super::ledger::Entry;
use super::link::{Away, Commands};
use crate::policy::limit::twin::Twin;
use crate::policy::limit::{
    Admit, Applied, Batch, Counts, Lapsed, Renew, Row, Rule, Standing, TopUp, Verdict,
};
use crate::telemetry::StoreMetrics;

/// Enough that a worker on each core of a large machine seldom waits for another one.
const SHARDS: usize = 16;

/// The state of all limits in this process.
#[derive(Debug)]
pub struct Local {
    clock: Clock,
    lease: Option<Duration>,
    shards: [Mutex<Shard>; SHARDS],
    metrics: StoreMetrics,
}

/// A twin, and what was last reported of it.
#[derive(Debug, Default)]
struct Shard {
    twin: Twin,
    scopes: usize,
    forgotten: u64,
}

impl Local {
    /// Empty state under this clock. `lease` is how long a lease lives without being renewed; none
    /// where whoever holds it dies only with this process.
    #[must_use]
    pub fn new(clock: Clock, lease: Option<Duration>, metrics: StoreMetrics) -> Self {
        Self { clock, lease, shards: Default::default(), metrics }
    }

    /// The time by which limits are counted here.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Takes all that is asked for, or nothing; void after `deadline_ms`.
    #[must_use]
    pub fn admit_by(&self, admit: &Admit, deadline_ms: u64) -> Verdict {
        self.with(&admit.tag, |twin, now| twin.admit(admit, deadline_ms, self.lease_end(now), now))
    }

    /// Applies at once what is told about an attempt.
    pub(super) fn post(&self, entry: &Entry) {
        self.with(&entry.tag, |twin, now| {
            if let Some(settle) = &entry.settle {
                twin.settle(&entry.tag, settle, now);
            }
            if let Some((hour, row, counts)) = &entry.usage {
                twin.record(&entry.tag, *hour, row, counts, now);
            }
        });
    }

    fn lease_end(&self, now: u64) -> u64 {
        match self.lease {
            Some(lease) => now.saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
            None => u64::MAX,
        }
    }

    /// Runs a command on the twin that has this tag. The clock is read under the lock, so that a
    /// tag sees time go forward only.
    fn with<R>(&self, tag: &str, command: impl FnOnce(&mut Twin, u64) -> R) -> R {
        let mut shard = self.shard(tag);
        let now = self.clock.now();
        let result = command(&mut shard.twin, now);
        let (scopes, forgotten) = (shard.twin.scopes(), shard.twin.forgotten());
        if scopes != shard.scopes {
            let signed = |scopes: usize| i64::try_from(scopes).unwrap_or(i64::MAX);
            self.metrics.scopes(signed(scopes) - signed(shard.scopes));
            shard.scopes = scopes;
        }
        if forgotten != shard.forgotten {
            self.metrics.forgotten(forgotten - shard.forgotten);
            shard.forgotten = forgotten;
        }
        result
    }

    fn shard(&self, tag: &str) -> MutexGuard<'_, Shard> {
        // Which tags share a lock is no secret, and need not be the same elsewhere.
        let hash = FixedState::default().hash_one(tag);
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        // A command that panicked has its tag in some state that was valid between two writes.
        self.shards.get(place).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commands for Local {
    async fn admit(&self, admit: &Admit) -> Result<Verdict, Away> {
        // No copy of it is under way anywhere, so it is never late.
        Ok(self.with(&admit.tag, |twin, now| twin.admit(admit, now, self.lease_end(now), now)))
    }

    async fn top_up(&self, more: &TopUp) -> Result<Verdict, Away> {
        Ok(self.with(&more.tag, |twin, now| twin.top_up(more, now, now)))
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, Away> {
        Ok(self.with(&batch.tag, |twin, now| twin.apply(batch, now)))
    }

    async fn renew(&self, tag: &Arc<str>, leases: &[Renew]) -> Result<(), Away> {
        self.with(tag, |twin, now| twin.renew(tag, leases, self.lease_end(now), now));
        Ok(())
    }

    async fn lapsed(&self, tag: &Arc<str>, limit: usize) -> Result<Vec<Lapsed>, Away> {
        Ok(self.with(tag, |twin, now| twin.lapsed(tag, limit, now)))
    }

    async fn standing(
        &self,
        tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Away> {
        Ok(self.with(tag, |twin, now| twin.standing(tag, asked, now)))
    }

    async fn usage(
        &self,
        tag: &Arc<str>,
        hours: Range<u64>,
    ) -> Result<Vec<(u64, Row, Counts)>, Away> {
        Ok(self.with(tag, |twin, _| twin.usage(tag, hours)))
    }
}
