//! What a node's workers share, and what belongs to one of them.

use std::num::NonZero;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::receive::Budget;
use crate::domain::{Lifecycle, Random};
use crate::policy::estimate::Estimator;
use crate::policy::retry::RetryBudget;
use crate::snapshot::Snapshot;
use crate::store::{Limiter, Store};
use crate::telemetry::{Metrics, Traces};
use crate::upstream::Upstream;

/// The settings of the request's life.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The largest request body, in bytes.
    pub body_limit: u64,
    /// The bytes of all request bodies in flight on the node.
    pub body_budget: u64,
    /// The longest silence inside a request body.
    pub body_stall: Duration,
}

/// Models whose prompts and answers are remembered.
const MODELS: usize = 1000;

/// What all workers of a node share.
#[derive(Debug)]
pub struct Shared {
    /// Settings that do not change while the node runs.
    pub config: Config,
    /// The configuration in force; swapped whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Spans of requests and attempts.
    pub traces: Traces,
    /// Where the node stands in its life.
    pub lifecycle: Arc<Lifecycle>,
    /// The node's id, as answers carry it.
    pub node: Arc<str>,
    /// Request body bytes in flight.
    pub(super) bodies: Arc<Budget>,
    /// Turns at reading large bodies. More of them at once than half of the cores would end none
    /// earlier, and would take the cores from the workers, whose other requests are short.
    pub(super) reading: Arc<Semaphore>,
    /// Requests so far that reached a pool: what the retry budget is a share of.
    pub(super) requests: AtomicU64,
    /// Only touched when a retry is wanted, so a lock costs nothing.
    pub(super) retries: Mutex<RetryBudget>,
    /// The state of limits.
    pub store: Arc<Store>,
    /// What requests turn out to use; touched where a limit asks for an estimate.
    pub(super) estimates: Mutex<Estimator>,
}

impl Shared {
    /// A node that serves from `snapshot`.
    #[must_use]
    pub fn new(
        config: Config,
        snapshot: Arc<Snapshot>,
        metrics: Metrics,
        lifecycle: Arc<Lifecycle>,
        node: Arc<str>,
    ) -> Self {
        let store = Store::standalone(metrics.store());
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            config,
            snapshot: ArcSwap::new(snapshot),
            metrics,
            traces: Traces::off(),
            lifecycle,
            node,
            bodies: Arc::new(Budget::new(config.body_budget)),
            reading: Arc::new(Semaphore::new(cores.div_ceil(2))),
            requests: AtomicU64::new(0),
            retries: Mutex::new(RetryBudget::new(Instant::now())),
            store,
            estimates: Mutex::new(Estimator::new(MODELS)),
        }
    }

    /// The same node, with this store.
    #[must_use]
    pub fn with_store(self, store: Arc<Store>) -> Self {
        Self { store, ..self }
    }

    /// The same node, with these traces.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Bytes of request bodies in flight.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.bodies.in_use()
    }
}

/// What belongs to one worker thread.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// The way to providers; its connections belong to this thread.
    pub upstream: Upstream,
    /// The way to limits; its connection belongs to this thread.
    pub limiter: Limiter,
    /// The random source of this thread.
    pub random: Random,
}

impl Worker {
    /// A worker of the node.
    #[must_use]
    pub fn new(shared: Arc<Shared>, upstream: Upstream) -> Self {
        let limiter = Limiter::new(&shared.store);
        Self { shared, upstream, limiter, random: Random::new() }
    }

    pub(super) fn random(&self) -> u64 {
        self.random.next_u64()
    }
}
