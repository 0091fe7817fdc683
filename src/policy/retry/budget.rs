//! The retry budget: repeat attempts are at most a tenth of the requests, with a floor.
//!
//! A fault of everything behind the fleet must not double the load on it (retry storms). Two
//! buckets: one earns a tenth of a retry with each request, the other ten retries a second, so
//! that a quiet node may still retry. Both hold little, so that a quiet hour does not pay for a
//! storm.

use std::time::{Duration, Instant};

/// Retries earned, in millionths: a request earns a tenth.
const PER_REQUEST: u64 = 100_000;
/// What one retry costs, in the same unit.
const RETRY: u64 = 1_000_000;
/// Retries per second that every node has in any case.
const FLOOR_PER_SECOND: u64 = 10;
/// At most one second of the floor is kept.
const FLOOR_MOST: u64 = FLOOR_PER_SECOND * RETRY;
/// At most what a thousand requests earn is kept.
const EARNED_MOST: u64 = 1_000 * PER_REQUEST;

/// The state of a node's retry budget.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    earned: u64,
    floor: u64,
    requests_seen: u64,
    updated: Instant,
}

impl RetryBudget {
    /// A budget that holds the floor of one second.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { earned: 0, floor: FLOOR_MOST, requests_seen: 0, updated: now }
    }

    /// Takes one retry if there is one; `requests` is the number of all requests so far.
    pub fn take(&mut self, requests: u64, now: Instant) -> bool {
        let new = requests.saturating_sub(self.requests_seen);
        self.requests_seen = requests.max(self.requests_seen);
        self.earned = self.earned.saturating_add(new.saturating_mul(PER_REQUEST)).min(EARNED_MOST);
        let elapsed = now.saturating_duration_since(self.updated).min(Duration::from_secs(1));
        self.updated = now.max(self.updated);
        // A microsecond of the floor is worth exactly `FLOOR_PER_SECOND` millionths; what is below
        // is lost, which errs on the side of fewer retries.
        let refill = elapsed.as_micros() as u64 * FLOOR_PER_SECOND;
        self.floor = self.floor.saturating_add(refill).min(FLOOR_MOST);
        let bucket = if self.earned >= RETRY { &mut self.earned } else { &mut self.floor };
        let granted = *bucket >= RETRY;
        if granted {
            *bucket -= RETRY;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut RetryBudget, requests: u64, now: Instant) -> u64 {
        (0..10_000).filter(|_| budget.take(requests, now)).count() as u64
    }

    #[test]
    fn a_quiet_node_has_ten_retries_a_second() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        assert_eq!(taken(&mut budget, 0, start), 10);
        assert_eq!(taken(&mut budget, 0, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut budget, 0, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn asking_often_does_not_starve_the_floor() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        assert_eq!(taken(&mut budget, 0, start), 10);
        let moments = (1..=20_000).map(|n| start + Duration::from_micros(50) * n);
        assert_eq!(moments.filter(|now| budget.take(0, *now)).count(), 10);
    }

    #[test]
    fn a_busy_node_retries_a_tenth_of_its_requests_and_the_floor() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        assert_eq!(taken(&mut budget, 0, start), 10);
        assert_eq!(taken(&mut budget, 500, start), 50);
        assert_eq!(taken(&mut budget, 1_000_000, start), 100, "a storm is not saved up for");
    }
}
