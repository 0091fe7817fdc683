//! The twin in this process.

use std::time::Duration;

use flotilla::policy::limit::{Admit, Verdict};
use flotilla::store::{Clock, Local};
use flotilla::telemetry::StoreMetrics;

use super::suite::{LEASE_MS, Rig};

/// The twin under a clock that the test moves.
struct Twin {
    clock: Clock,
    local: Local,
}

impl Rig for Twin {
    type Commands = Local;

    async fn fresh() -> Self {
        // A moment in the middle of a slot, of an hour and of everything.
        let clock = Clock::manual(1_800_000_123_456);
        let lease = Some(Duration::from_millis(LEASE_MS));
        let local = Local::new(clock.clone(), lease, StoreMetrics::default());
        Self { clock, local }
    }

    fn commands(&self) -> &Local {
        &self.local
    }

    async fn now(&self) -> u64 {
        self.clock.now()
    }

    async fn pass(&self, ms: u64) {
        self.clock.set(self.clock.now() + ms);
    }

    async fn admit_by(&self, admit: &Admit, deadline_ms: u64) -> Verdict {
        self.local.admit_by(admit, deadline_ms)
    }
}

super::behaviours!(Twin);
