//! Metrics of limits and of the store behind them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the store counts. Clones are the same metrics; the default ones are reported nowhere.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    reservations: Gauge,
    scopes: Gauge,
    forgotten: Counter,
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
}
