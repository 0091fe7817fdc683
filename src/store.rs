//! Limits and shared state: what a worker asks before an attempt, and what is told afterwards.
//!
//! A `Store` belongs to the node, a `Limiter` to one worker. Below them is one set of commands
//! (`Commands`) with two implementations: the twin in this process (`Local`), exact on one node,
//! and Redis for a fleet. Whoever asks does not see which one answers.

pub mod breaker;
mod clock;
mod command;
mod config;
pub mod connection;
mod endpoint;
mod fault;
mod keys;
pub mod ledger;
mod limiter;
mod link;
mod local;
mod master_clock;
pub mod redis;
mod reservation;
pub mod script;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use self::redis::Redis;
use crate::domain::AttemptId;
use crate::policy::limit::{Admit, Counts, Row, Rule, Standing};
use crate::telemetry::StoreMetrics;
use endpoint::Endpoint;
use ledger::{Entry, Haste, Ledger, LedgerConfig};
use link::Link;

pub use clock::Clock;
pub use config::Config;
pub use endpoint::EndpointError;
pub use limiter::{Denied, Limiter};
pub use link::{Away, Commands};
pub use local::Local;
pub use reservation::{Permits, Reservation, Topped, Used};

/// An hour in milliseconds: usage is kept by the hour.
const HOUR_MS: u64 = 3_600_000;
/// How much longer than its deadline a call that was given up is thought to be under way: what the
/// clocks may differ, with room to spare.
const GIVEN_UP_SLACK: Duration = Duration::from_millis(50);
/// The deadline of what is asked aside, connecting included.
const ASIDE: Duration = Duration::from_secs(2);

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
    /// In Redis, for all nodes together.
    Redis(Box<Remote>),
}

/// What a node has of a state that is elsewhere.
#[derive(Debug)]
struct Remote {
    config: Config,
    ledger: Ledger,
    /// This node's own time: only to find hours and periods, never to decide.
    clock: Clock,
}

/// Why a store cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL or the TLS files.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system gives no thread.
    #[error("cannot start the thread that settles limits")]
    Thread(#[from] io::Error),
}

impl Store {
    /// The state in this process: exact on one node, and all there is without a Redis.
    #[must_use]
    pub fn standalone(metrics: StoreMetrics) -> Arc<Self> {
        let local = Local::new(Clock::real(), None, metrics.clone());
        Arc::new(Self { backend: Backend::Local(Arc::new(local)), metrics })
    }

    /// The state in Redis, shared by all nodes with its prefix. Returns before it is connected;
    /// until then, and whenever Redis does not answer, the rule of each limit holds.
    ///
    /// # Errors
    /// The URL or the TLS files cannot be read, or there is no thread.
    pub fn redis(config: Config, metrics: StoreMetrics) -> Result<Arc<Self>, StoreError> {
        let connection = &config.connection;
        Endpoint::parse(connection.url.expose(), &connection.tls, connection.deadline)?;
        let ledger_config = LedgerConfig {
            incarnation: config.incarnation,
            lease_ttl: config.shape.lease_ttl,
            // A call is made twice at most, each void after its deadline.
            given_up: connection.deadline * 2 + GIVEN_UP_SLACK,
            flushed: connection.deadline,
        };
        let for_ledger = config.clone();
        let link = move || for_ledger.link(for_ledger.connection.deadline);
        let ledger = Ledger::start(ledger_config, metrics.clone(), link)?;
        let remote = Remote { config, ledger, clock: Clock::real() };
        Ok(Arc::new(Self { backend: Backend::Redis(Box::new(remote)), metrics }))
    }

    /// The time by which hours and periods are found, in milliseconds of Unix time. It never steps.
    /// Of a state in Redis it is this node's guess; a period that is wrong for it is denied as
    /// stale, with the right time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.backend {
            Backend::Local(local) => local.now(),
            Backend::Redis(remote) => remote.clock.now(),
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
        self.link_aside().standing(tag, asked).await
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
        self.link_aside().usage(tag, hours).await
    }

    /// Waits until what was said so far about this tag is in force, for a bounded time.
    async fn flushed(&self, tag: &Arc<str>) {
        match &self.backend {
            // It is in force as soon as it is said.
            Backend::Local(_) => {}
            Backend::Redis(remote) => remote.ledger.flushed(tag).await,
        }
    }

    /// Leases of these admits are held from now on, under this id.
    fn opened(&self, id: AttemptId, admits: &Arc<[Admit]>) {
        match &self.backend {
            // They last as long as this process does.
            Backend::Local(_) => {}
            Backend::Redis(remote) => remote.ledger.opened(id, admits),
        }
    }

    /// They are held no longer: what is posted next gives them back.
    fn closed(&self, id: AttemptId) {
        match &self.backend {
            Backend::Local(_) => {}
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

    /// A way to the state for one thread, which must be an actix worker or have a `LocalSet`.
    fn link(&self) -> Link {
        match &self.backend {
            Backend::Local(local) => Link::Local(Arc::clone(local)),
            Backend::Redis(remote) => {
                let config = &remote.config;
                Link::Redis(Box::new(config.link(config.connection.deadline)))
            }
        }
    }

    /// A way for what is asked seldom and has time: a connection of its own, gone with the answer.
    fn link_aside(&self) -> Link {
        match &self.backend {
            Backend::Local(_) => self.link(),
            Backend::Redis(remote) => Link::Redis(Box::new(remote.config.link(ASIDE))),
        }
    }

    /// Takes the entry over; it is never lost from here on.
    fn post(&self, entry: Entry, haste: Haste) {
        match &self.backend {
            // Nothing is ever given up in this process, and nothing is far away.
            Backend::Local(local) => local.post(&entry),
            Backend::Redis(remote) => remote.ledger.post(entry, haste),
        }
    }
}

impl Config {
    fn link(&self, deadline: Duration) -> Redis {
        let connection = connection::Config { deadline, ..self.connection.clone() };
        Redis::open(&connection, &self.shape).expect("it was read when the store was made")
    }
}
