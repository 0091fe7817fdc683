//! Metrics of limits and of the store behind them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::series::Series;

/// What the store counts. Clones are the same metrics; the default ones are reported nowhere.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    reservations: Gauge,
    scopes: Gauge,
    forgotten: Counter,
    queued: Gauge,
    dropped: Counter,
    batches: Series<BatchLabels, Counter>,
    degraded: Series<FunctionLabels, Gauge>,
    degraded_seconds: Series<FunctionLabels, Counter<f64, AtomicU64>>,
    degraded_admissions: Series<PolicyLabels, Counter>,
    degraded_denials: Series<PolicyLabels, Counter>,
    refused_locally: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    function: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BatchLabels {
    outcome: &'static str,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            reservations: Gauge::default(),
            scopes: Gauge::default(),
            forgotten: Counter::default(),
            queued: Gauge::default(),
            dropped: Counter::default(),
            batches: Series::new(Counter::default),
            degraded: Series::new(Gauge::default),
            degraded_seconds: Series::new(Counter::default),
            degraded_admissions: Series::new(Counter::default),
            degraded_denials: Series::new(Counter::default),
            refused_locally: Counter::default(),
        }
    }
}

impl StoreMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_reservations",
            "Attempts whose reservation is not yet settled",
            self.reservations.clone(),
        );
        registry.register(
            "limit_scopes",
            "Counters' owners that this node keeps the state of",
            self.scopes.clone(),
        );
        registry.register(
            "limit_scopes_forgotten",
            "Counters' owners forgotten before their time, because there were too many",
            self.forgotten.clone(),
        );
        registry.register(
            "ledger_queued",
            "Settles and rows of usage that the store has not acknowledged",
            self.queued.clone(),
        );
        registry.register(
            "ledger_dropped",
            "Settles dropped because too many waited; their reservations stand as they are",
            self.dropped.clone(),
        );
        registry.register(
            "ledger_batches",
            "What the ledger sent to the store, by what became of it",
            self.batches.clone(),
        );
        registry.register(
            "degraded",
            "Whether a function of this node goes on by its rule without the store: 1 if so",
            self.degraded.clone(),
        );
        registry.register(
            "degraded_seconds",
            "For how long functions of this node went on without the store",
            self.degraded_seconds.clone(),
        );
        registry.register(
            "limit_degraded_admissions",
            "Admissions on a tag whose store did not answer, by the rule that allowed them",
            self.degraded_admissions.clone(),
        );
        registry.register(
            "limit_degraded_denials",
            "Admissions denied on a tag whose store did not answer, by the rule that denied them",
            self.degraded_denials.clone(),
        );
        registry.register(
            "limit_refused_locally",
            "Refusals by a limit that was known to be over, without asking the store",
            self.refused_locally.clone(),
        );
    }

    /// An attempt was admitted.
    pub fn opened(&self) {
        self.reservations.inc();
    }

    /// It was settled.
    pub fn closed(&self) {
        self.reservations.dec();
    }

    /// The state in this process has so many owners more, or less.
    pub fn scopes(&self, change: i64) {
        self.scopes.inc_by(change);
    }

    /// So many of them were forgotten although they counted something.
    pub fn forgotten(&self, scopes: u64) {
        self.forgotten.inc_by(scopes);
    }

    /// So much of what was told waits to be in force.
    pub fn queued(&self, entries: usize) {
        self.queued.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// So many settles were dropped.
    pub fn dropped(&self, settles: u64) {
        self.dropped.inc_by(settles);
    }

    /// A batch was `applied` or `failed`, or leases were `renewed` or `not_renewed`.
    pub fn batch(&self, outcome: &'static str) {
        self.batches.with(&BatchLabels { outcome }, |count| {
            count.inc();
        });
    }

    /// A function goes on without the store, or with it again.
    pub fn degraded(&self, function: &'static str, degraded: bool) {
        let labels = FunctionLabels { function };
        self.degraded.with(&labels, |gauge| {
            gauge.set(i64::from(degraded));
        });
    }

    /// It did so for this long more.
    pub fn degraded_for(&self, function: &'static str, duration: Duration) {
        self.degraded_seconds.with(&FunctionLabels { function }, |seconds| {
            seconds.inc_by(duration.as_secs_f64());
        });
    }

    /// An attempt was admitted by this rule because the store did not answer.
    pub fn admitted_degraded(&self, policy: &'static str) {
        self.degraded_admissions.with(&PolicyLabels { policy }, |count| {
            count.inc();
        });
    }

    /// An attempt was denied by this rule because the store did not answer.
    pub fn denied_degraded(&self, policy: &'static str) {
        self.degraded_denials.with(&PolicyLabels { policy }, |count| {
            count.inc();
        });
    }

    /// A limit that was known to be over refused.
    pub fn refused_locally(&self) {
        self.refused_locally.inc();
    }
}
