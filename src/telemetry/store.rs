//! Metrics of limits and of the store behind them.

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
}
