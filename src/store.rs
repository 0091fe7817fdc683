//! Limits and shared state: what a worker asks before an attempt, and what is told afterwards.
//!
//! A `Store` belongs to the node, a `Limiter` to one worker. Below them is one set of commands
//! (`Commands`) with two implementations: the twin in this process (`Local`), exact on one node,
//! and Redis for a fleet. Whoever asks does not see which one answers.

mod clock;
mod config;
mod limiter;
mod link;
mod local;
mod reservation;

use std::ops::Range;
use std::sync::Arc;

use crate::policy::limit::{Admit, Counts, Row, Rule, Settle, Standing};
use crate::telemetry::StoreMetrics;
use link::Link;

pub use clock::Clock;
pub use config::Config;
pub use limiter::{Denied, Limiter};
pub use link::{Away, Commands};
pub use local::Local;
pub use reservation::{Permits, Reservation, Topped, Used};

/// An hour in milliseconds: usage is kept by the hour.
const HOUR_MS: u64 = 3_600_000;

/// The state of all limits as this node sees it. One for each node; shared by all of its threads.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
    metrics: StoreMetrics,
}

/// Where the state is.
#[derive(Debug)]
enum Backend {
    /// In this process, for good.
    Local(Arc<Local>),
}

/// What is told about an attempt that is over: its truth, its usage, or both.
#[derive(Debug)]
struct Entry {
    tag: Arc<str>,
    settle: Option<Settle>,
    /// With its hour.
    usage: Option<(u64, Row, Counts)>,
}

/// How soon an entry is to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// A permit that somebody may wait for.
    Release,
    /// A correction.
    Settle,
    /// The admission was given up without an answer and may still be executed, so the entry waits
    /// until that can no longer happen.
    GivenUp,
}

impl Store {
    /// The state in this process: exact on one node, and all there is without a Redis.
    #[must_use]
    pub fn standalone(metrics: StoreMetrics) -> Arc<Self> {
        let local = Local::new(Clock::real(), None, metrics.clone());
        Arc::new(Self { backend: Backend::Local(Arc::new(local)), metrics })
    }

    /// The time by which limits are counted and periods are found, in milliseconds of Unix time.
    /// It never steps.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.backend {
            Backend::Local(local) => local.now(),
        }
    }

    /// How limits of a tag stand now, each named by its scope and rule. Nothing is changed.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn standing(
        &self,
        tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Away> {
        self.link().standing(tag, asked).await
    }

    /// The usage of a tag in these hours (Unix time in hours), in no particular order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn usage(
        &self,
        tag: &Arc<str>,
        hours: Range<u64>,
    ) -> Result<Vec<(u64, Row, Counts)>, Away> {
        self.link().usage(tag, hours).await
    }

    /// Waits until what was said so far about these tags is in force, for a bounded time.
    async fn flushed(&self, _admits: &[Admit]) {
        match &self.backend {
            Backend::Local(_) => {}
        }
    }

    /// A way to the state for one thread.
    fn link(&self) -> Link {
        match &self.backend {
            Backend::Local(local) => Link::Local(Arc::clone(local)),
        }
    }

    /// Takes the entry over; it is never lost from here on.
    fn post(&self, entry: Entry, haste: Haste) {
        match &self.backend {
            Backend::Local(local) => {
                // Nothing is ever given up in this process, and nothing is far away.
                let _ = haste;
                local.post(&entry);
            }
        }
    }
}
