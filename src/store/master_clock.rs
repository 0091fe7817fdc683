//! What time it is in Redis, as far as a node can know: deadlines and leases are given in its time.
//!
//! Every reply carries `now`, taken between sending and receiving; the difference of the clocks is
//! therefore within [now - received, now - sent]. The estimate is moved into that interval by as
//! little as possible: slow replies say little and change little, drift is followed, and a clock
//! that was set is believed with the next reply.

use std::time::{Duration, Instant};

/// The difference between the clock of a master and this node's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MasterClock {
    base: Instant,
    /// Redis time at `base`, in ms, once it is known.
    at_base: Option<i64>,
}

impl MasterClock {
    /// Nothing is known yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { base: now, at_base: None }
    }

    /// Learns from a reply that carried `now_ms`.
    pub(crate) fn learn(&mut self, now_ms: i64, sent: Instant, received: Instant) {
        // A master cuts its time to whole milliseconds, downwards: it may be 1 later than it says.
        let low = now_ms - self.since_base(received);
        let high = (now_ms + 1 - self.since_base(sent)).max(low);
        self.at_base = Some(match self.at_base {
            Some(estimate) => estimate.clamp(low, high),
            None => i64::midpoint(low, high),
        });
    }

    /// Redis time in ms, once anything is known of it.
    pub(crate) fn now_ms(&self, now: Instant) -> Option<u64> {
        let at_base = self.at_base?;
        u64::try_from(at_base + self.since_base(now)).ok()
    }

    fn since_base(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.base);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 4)
    }
}

/// How much later than its own deadline a call may still run in Redis: what the estimate may be
/// behind, and no more, because a settle waits for it.
pub(crate) const SLACK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_known_before_the_first_reply() {
        let base = Instant::now();
        assert_eq!(MasterClock::new(base).now_ms(base), None);
    }

    #[test]
    fn a_slow_reply_does_not_spoil_what_a_fast_one_taught() {
        let base = Instant::now();
        let mut clock = MasterClock::new(base);
        clock.learn(1_000_000, base, base);
        // Sent at 10, answered at 15 by the master, read at 60.
        clock.learn(1_000_015, at(base, 10), at(base, 60));
        assert_eq!(clock.now_ms(at(base, 100)), Some(1_000_100));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_with_the_next_reply() {
        let base = Instant::now();
        let mut clock = MasterClock::new(base);
        clock.learn(1_000_000, base, base);
        for hour in [3_600_000, -3_600_000] {
            clock.learn(5_000_000 + hour, at(base, 10), at(base, 10));
            let now = clock.now_ms(at(base, 10)).expect("it was told");
            assert!(now.abs_diff(5_000_000_u64.strict_add_signed(hour)) <= 1, "{now}");
        }
    }
}
