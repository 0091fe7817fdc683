//! Whether a master is asked: a breaker, as a pure state machine.
//!
//! It opens after `THRESHOLD` failures in a row, and then lets one call through at a time, after
//! waits that double from `FIRST_WAIT` to `LONGEST_WAIT`; one success closes it. The longest wait
//! bounds the recovery: a master that answers again is asked within a second.

use std::time::{Duration, Instant};

/// Failures in a row that open it: one may be a slip of the network, three are not.
const THRESHOLD: u32 = 3;
/// The first wait before a probe.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A probe whose outcome was never told (its future was dropped) is given up after this.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A breaker.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, wait: Duration },
    Probing { until: Instant, wait: Duration },
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Ask; once more if it fails.
    Go,
    /// Ask, as the only one: whether the master is back depends on it.
    Probe,
    /// Do not ask.
    Stay,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 } }
    }
}

impl Breaker {
    /// Whether a call may ask now.
    pub fn ask(&mut self, now: Instant) -> Leave {
        match self.state {
            State::Closed { .. } => Leave::Go,
            State::Open { until, wait } | State::Probing { until, wait } if until <= now => {
                self.state = State::Probing { until: now + PROBE_LIMIT, wait };
                Leave::Probe
            }
            State::Open { .. } | State::Probing { .. } => Leave::Stay,
        }
    }

    /// Whether calls are let through freely.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// The master answered.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The master did not answer, or cannot serve. `random` spreads the nodes' probes. True if this
    /// failure was a probe's, or opened the breaker.
    pub fn failed(&mut self, now: Instant, random: u64) -> bool {
        let wait = match self.state {
            State::Closed { failures } if failures + 1 < THRESHOLD => {
                self.state = State::Closed { failures: failures + 1 };
                return false;
            }
            State::Closed { .. } => FIRST_WAIT,
            State::Probing { wait, .. } => (wait * 2).min(LONGEST_WAIT),
            // Of a call from before it opened: says nothing new.
            State::Open { .. } => return false,
        };
        self.state = State::Open { until: now + jittered(wait, random), wait };
        true
    }
}

/// Between half of a wait and all of it.
#[must_use]
pub(crate) fn jittered(wait: Duration, random: u64) -> Duration {
    let part = u32::try_from(random % 1024).expect("below 1024");
    wait / 2 + wait / 2048 * part
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(now, 0));
        assert!(!breaker.failed(now, 0));
        assert!(breaker.failed(now, u64::MAX));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert!(!breaker.failed(now, 0));
            assert!(!breaker.failed(now, 0));
            breaker.succeeded();
        }
        assert_eq!(breaker.ask(now), Leave::Go);
        assert_eq!(open(now).ask(now), Leave::Stay);
    }

    #[test]
    fn one_probe_at_a_time_is_let_through_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + FIRST_WAIT;
        assert_eq!(breaker.ask(later), Leave::Probe);
        assert_eq!(breaker.ask(later), Leave::Stay);
        breaker.succeeded();
        assert_eq!(breaker.ask(later), Leave::Go);
    }

    #[test]
    fn a_probe_comes_at_least_once_a_second_however_long_the_outage() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        for _ in 0..20 {
            let asked = now;
            while breaker.ask(now) != Leave::Probe {
                now += MS;
            }
            assert!(now - asked <= LONGEST_WAIT);
            breaker.failed(now, u64::MAX);
        }
    }

    #[test]
    fn a_probe_whose_outcome_nobody_tells_is_not_waited_for() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert_eq!(breaker.ask(now + FIRST_WAIT), Leave::Probe);
        assert_eq!(breaker.ask(now + FIRST_WAIT + PROBE_LIMIT), Leave::Probe);
    }

    #[test]
    fn a_jittered_wait_is_between_half_and_all() {
        for random in [0, 1, 1023, 1024, u64::MAX] {
            let wait = jittered(LONGEST_WAIT, random);
            assert!(wait >= LONGEST_WAIT / 2 && wait <= LONGEST_WAIT, "{wait:?}");
        }
    }
}
