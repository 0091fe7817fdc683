//! The life of the process as every part of it sees it: starting, serving, draining, ending.
//!
//! One value per node. It only moves forward. Whoever waits for a move waits on a token, so no
//! request polls; whoever needs to know how many requests are left asks `in_flight`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Where the node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving and ready.
    Serving,
    /// Unready, still serving, and asking every client to close its connection (the lame duck).
    Draining,
    /// The drain limit is passed: what is still in flight is told so and ended.
    Ending,
}

impl Phase {
    /// As people and probes read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Ending => "ending",
        }
    }
}

/// The node's life, shared by all of its parts.
#[derive(Debug)]
pub struct Lifecycle {
    phase: AtomicU8,
    in_flight: AtomicUsize,
    ending: CancellationToken,
}

impl Lifecycle {
    /// A node that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            in_flight: AtomicUsize::new(0),
            ending: CancellationToken::new(),
        }
    }

    /// Where the node stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Draining,
            _ => Phase::Ending,
        }
    }

    /// Moves forward to `phase`; a step back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        if phase == Phase::Ending {
            self.ending.cancel();
        }
    }

    /// Resolves once the node ends and requests in flight must end with it.
    pub fn ending(&self) -> WaitForCancellationFutureOwned {
        self.ending.clone().cancelled_owned()
    }

    /// Requests in flight, bodies of answers included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one request as in flight until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Lifecycle>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_only_moves_forward() {
        let life = Arc::new(Lifecycle::new());
        life.advance(Phase::Draining);
        life.advance(Phase::Serving);
        assert_eq!(life.phase(), Phase::Draining);
    }

    #[test]
    fn a_request_is_in_flight_while_its_guard_lives() {
        let life = Arc::new(Lifecycle::new());
        let guard = life.enter();
        assert_eq!(life.in_flight(), 1);
        drop(guard);
        assert_eq!(life.in_flight(), 0);
    }
}
