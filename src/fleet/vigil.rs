//! What each tick is looked at for: a clock of Redis's that stepped, and writes that it lost.
//!
//! Both make limits inexact, and neither can be prevented from here, so they are told. The clock is
//! compared with this machine's monotonic one, which a suspended machine may hold still: an alarm
//! after that is about this machine. The number of ticks of all nodes only ever grows; if the next
//! one is not larger than the last, then Redis came back from a state before it: a failover, a
//! restart without all of its data, or somebody who emptied it.

use std::time::Instant;

/// A step below this is nothing but drift and rounding.
const STEP_MS: i64 = 1_000;

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    last: Option<Tick>,
}

/// What a tick told, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    /// Before it was sent.
    pub(super) sent: Instant,
    /// When its answer was here.
    pub(super) received: Instant,
    /// Redis time.
    pub(super) now_ms: u64,
    /// Ticks of all nodes so far.
    pub(super) ticks: u64,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Redis's clock went forward by at least so much more than time did. What left its window by
    /// that may be admitted again, once.
    ClockForward {
        /// In ms.
        by_ms: u64,
    },
    /// It went back by at least so much. Limits go on where they are, until it has caught up.
    ClockBack {
        /// In ms.
        by_ms: u64,
    },
    /// Redis lost what it had acknowledged.
    WritesLost {
        /// Ticks that had been counted.
        seen: u64,
        /// Ticks that are counted now.
        now: u64,
    },
}

impl Vigil {
    /// What is wrong between the last tick and this one.
    pub(super) fn look(&mut self, tick: Tick) -> Vec<Alarm> {
        let Some(last) = self.last.replace(tick) else { return Vec::new() };
        let mut alarms = Vec::new();
        let passed = signed(tick.now_ms) - signed(last.now_ms);
        // The script ran some time between sending and receiving.
        let most = since(last.sent, tick.received);
        let least = since(last.received, tick.sent);
        if passed - most >= STEP_MS {
            alarms.push(Alarm::ClockForward { by_ms: (passed - most).unsigned_abs() });
        } else if least - passed >= STEP_MS {
            alarms.push(Alarm::ClockBack { by_ms: (least - passed).unsigned_abs() });
        }
        if tick.ticks <= last.ticks {
            alarms.push(Alarm::WritesLost { seen: last.ticks, now: tick.ticks });
        }
        alarms
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn since(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Ticks that were sent after so many ms and took so long; Redis told this time and number.
    fn alarms(ticks: &[(u64, u64, u64, u64)]) -> Vec<Alarm> {
        let (start, mut vigil) = (Instant::now(), Vigil::default());
        let mut alarms = Vec::new();
        for (at, took, now_ms, ticks) in ticks {
            let sent = start + Duration::from_millis(*at);
            let received = sent + Duration::from_millis(*took);
            alarms.extend(vigil.look(Tick { sent, received, now_ms: *now_ms, ticks: *ticks }));
        }
        alarms
    }

    #[test]
    fn a_clock_that_keeps_time_is_no_alarm_however_slow_the_answers_are() {
        assert_eq!(alarms(&[(0, 5, 1_000_000, 1), (250, 5, 1_000_250, 2)]), []);
        // It ran at once and was answered late, and the other way round.
        assert_eq!(alarms(&[(0, 5_000, 1_000_000, 1), (6_000, 5_000, 1_011_000, 2)]), []);
        // A node that was stopped for a minute.
        assert_eq!(alarms(&[(0, 5, 1_000_000, 1), (250, 60_000, 1_000_251, 2)]), []);
    }

    #[test]
    fn a_clock_that_steps_is_told_once_with_at_least_how_much() {
        let ticks = [(0, 5, 1_000_000, 1), (250, 5, 4_600_250, 2), (500, 5, 4_600_500, 3)];
        assert_eq!(alarms(&ticks), [Alarm::ClockForward { by_ms: 3_599_995 }]);
        let ticks = [(0, 5, 4_600_000, 1), (250, 5, 1_000_250, 2), (500, 5, 1_000_500, 3)];
        assert_eq!(alarms(&ticks), [Alarm::ClockBack { by_ms: 3_599_995 }]);
        assert_eq!(alarms(&[(0, 0, 1_000_000, 1), (250, 0, 1_001_249, 2)]), []);
    }

    #[test]
    fn a_number_that_does_not_grow_is_told_as_lost_writes() {
        let ticks = [(0, 5, 1_000_000, 7), (250, 5, 1_000_250, 7), (500, 5, 1_000_500, 8)];
        assert_eq!(alarms(&ticks), [Alarm::WritesLost { seen: 7, now: 7 }]);
        let ticks = [(0, 5, 1_000_000, 7), (250, 5, 1_000_250, 1), (500, 5, 1_000_500, 2)];
        assert_eq!(alarms(&ticks), [Alarm::WritesLost { seen: 7, now: 1 }]);
    }
}
