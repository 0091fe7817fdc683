//! The clock of the twin: it begins with the wall clock and then only ever goes forward.
//!
//! A step of the system's clock must not open a window twice or close it for an hour.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time that never step. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Real { started_ms: u64, started: Instant },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The time of day when it is made, and from there on the time that has passed.
    #[must_use]
    pub fn real() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX >> 1);
        Self(Kind::Real { started_ms, started: Instant::now() })
    }

    /// A clock that stands still until it is set: for tests of what time does.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self(Kind::Manual(Arc::new(AtomicU64::new(now_ms))))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> u64 {
        match &self.0 {
            Kind::Real { started_ms, started } => {
                let passed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX >> 1);
                started_ms.saturating_add(passed)
            }
            Kind::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Sets a manual clock; a real one goes its own way.
    pub fn set(&self, now_ms: u64) {
        if let Kind::Manual(now) = &self.0 {
            now.store(now_ms, Ordering::Relaxed);
        }
    }
}
