//! Limits and shared state: what a worker asks before an attempt, and what is told afterwards.
//!
//! A `Store` belongs to the node, a `Limiter` to one worker. Below them is one set of commands
//! (`Commands`) with two implementations: the twin in this process (`Local`), exact on one node,
//! and Redis for a fleet. Whoever asks does not see which one answers.

pub mod breaker;
mod clock;
mod cold;
mod command;
mod config;
pub mod connection;

mod degraded;
pub mod description;
mod endpoint;
mod fault;
mod keys;
mod known;
pub mod ledger;
mod limiter;
mod link;
mod local;
mod master_clock;
pub mod membership;
pub mod migrate;
pub mod redis;
mod reservation;
pub mod schema;
pub mod script;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use self::redis::Redis;
use crate::domain::AttemptId;
use crate::policy::limit::share::{self, Bound, Share};
use crate::policy::limit::{Admit, Counts, Degraded, Row, Rule, Standing};
use crate::telemetry::StoreMetrics;
use degraded::Alone;
use endpoint::Endpoint;
use ledger::{Entry, Haste, Ledger, LedgerConfig};
use link::Link;
use membership::Membership;

pub use clock::Clock;
pub use config::Config;
pub use endpoint::Tls;
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
    /// In Redis; each thread has a connection of its own.
    Redis(Box<Remote>),
}

/// A state that is elsewhere.
#[derive(Debug)]
struct Remote {
    config: Config,
    clock: Clock,
    /// What is told without waiting.
    ledger: Ledger,
    /// What is decided while it does not answer.
    alone: Alone,
}

/// What holds of a limit while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAway {
    /// The live nodes that were last known.
    pub live: u32,
    /// What this node may admit now under `local_share`.
    pub share: u64,
    /// What all of them may admit together under the limit's own rule.
    pub bound: Bound,
}

/// Why a store in Redis cannot be begun. That it cannot be reached is none.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL or a TLS file.
    #[error(transparent)]
    Endpoint(#[from] connection::EndpointError),
    /// The system gives no thread.
    #[error("cannot start the thread that settles")]
    Thread(#[source] std::io::Error),
}

impl Store {
    /// The state in this process: exact on one node, and all there is without a Redis.
    #[must_use]
    pub fn standalone(metrics: StoreMetrics) -> Arc<Self> {
        let local = Local::new(Clock::real(), None, metrics.clone());
        Arc::new(Self { backend: Backend::Local(Arc::new(local)), metrics })
    }

    /// The state in Redis, shared with all nodes of the fleet. Begins to connect; a Redis that is
    /// not there holds nothing up.
    ///
    /// # Errors
    /// The settings cannot be used, or there is no thread for the ledger.
    pub fn redis(config: Config, metrics: StoreMetrics) -> Result<Arc<Self>, StoreError> {
        let connection::Config { url, tls, deadline } = &config.connection;
        drop(Endpoint::parse(url.expose(), tls, *deadline)?);
        let terms = LedgerConfig {
            incarnation: config.incarnation,
            lease_ttl: config.shape.lease_ttl,
            given_up: 2 * *deadline + 2 * master_clock::SLACK,
            flushed: *deadline,
        };
        // Nobody waits for what the ledger sends, and a slow answer is better than a resend.
        let theirs = config.patient();
        let link = move || theirs.open();
        let ledger = Ledger::start(terms, metrics.clone(), link).map_err(StoreError::Thread)?;
        let clock = Clock::real();
        let alone = Alone::new(clock.clone(), metrics.clone(), config.membership.clone());
        let remote = Remote { config, clock, ledger, alone };
        Ok(Arc::new(Self { backend: Backend::Redis(Box::new(remote)), metrics }))
    }

    /// How many nodes were live when the store was last reached, this one included.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.alone().map_or(1, |alone| alone.fleet().live)
    }

    /// What this node may admit now by itself of a limit that is shared, and what all nodes may
    /// together, if the store is away. None where it cannot be: it is in this process.
    #[must_use]
    pub fn if_away(&self, policy: Degraded, rule: &Rule) -> Option<IfAway> {
        let fleet = self.alone()?.fleet();
        let share = match share::share(rule, fleet, self.now_ms()) {
            Share::Of(rule) => rule.limit,
            Share::Later(_) => 0,
        };
        Some(IfAway { live: fleet.live, share, bound: share::bound(policy, rule, fleet.live) })
    }

    /// What decides while the store does not answer; none where it is in this process.
    fn alone(&self) -> Option<&Alone> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Redis(remote) => Some(&remote.alone),
        }
    }

    /// Whether nothing new may be asked of this tag, because leases held there are not yet
    /// registered.
    fn is_shut(&self, tag: &str) -> bool {
        match &self.backend {
            Backend::Local(_) => false,
            Backend::Redis(remote) => remote.ledger.is_shut(tag),
        }
    }

    /// Leases are held that the store of this tag never had.
    fn unregistered(&self, tag: &Arc<str>) {
        if let Backend::Redis(remote) = &self.backend {
            remote.ledger.unregistered(tag);
        }
    }

    /// The time by which limits are counted and periods are found, in milliseconds of Unix time.
    /// In this process it never steps; in a fleet it is Redis's, once a tick has told it.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.backend {
            Backend::Local(local) => local.now(),
            Backend::Redis(remote) => {
                let told = remote.config.membership.as_ref().and_then(|place| place.now_ms());
                told.unwrap_or_else(|| remote.clock.now())
            }
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
        self.patient_link().standing(tag, asked).await
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
        self.patient_link().usage(tag, hours).await
    }

    /// Waits until what was said so far about this tag is in force, for a bounded time.
    async fn flushed(&self, tag: &Arc<str>) {
        match &self.backend {
            // It is in force as soon as it is said.
            Backend::Local(_) => {}
            Backend::Redis(remote) => remote.ledger.flushed(tag).await,
        }
    }

    /// Leases of these admits are held from now on, under this id. `known` says whether the store
    /// may know of them.
    fn opened(&self, id: AttemptId, admits: &Arc<[Admit]>, known: bool) {
        match &self.backend {
            // They last as long as this process does.
            Backend::Local(_) => {}
            Backend::Redis(remote) => remote.ledger.opened(id, admits, known),
        }
    }

    /// They are held no longer: what is posted next gives them back. Answers whether the store may
    /// know of them.
    fn closed(&self, id: AttemptId) -> bool {
        match &self.backend {
            Backend::Local(_) => true,
            Backend::Redis(remote) => remote.ledger.closed(id),
        }
    }

    /// Sends all that waits to be sent, for at most this time. Answers how much is left. The last
    /// thing that is done with a store, once nothing is in flight.
    pub async fn close(&self, limit: Duration) -> usize {
        match &self.backend {
            // Nothing waits.
            Backend::Local(_) => 0,
            Backend::Redis(remote) => remote.ledger.close(limit).await,
        }
    }

    /// The node's place in its fleet, where it has one.
    #[must_use]
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Redis(remote) => remote.config.membership.as_ref(),
        }
    }

    /// A way to Redis for what keeps this node in its fleet, made where it is used; none without a
    /// Redis.
    #[must_use]
    pub fn link_of_fleet(&self) -> Option<Redis> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Redis(remote) => Some(remote.config.patient().open()),
        }
    }

    /// A way to the state for one thread.
    fn link(&self) -> Link {
        match &self.backend {
            Backend::Local(local) => Link::Local(Arc::clone(local)),
            Backend::Redis(remote) => Link::Redis(Box::new(remote.config.open())),
        }
    }

    /// The same for operators, who wait longer than a request may.
    fn patient_link(&self) -> Link {
        match &self.backend {
            Backend::Local(_) => self.link(),
            Backend::Redis(remote) => Link::Redis(Box::new(remote.config.patient().open())),
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
            Backend::Redis(remote) => remote.ledger.post(entry, haste),
        }
    }
}
