//! A token bucket: what is used flows out again, the limit in each window, and at most `burst` is in
//! it.
//!
//! The level is kept in units times `window_ms`, so that a millisecond drains exactly `limit` of it
//! and nothing is ever rounded. A debt may lift it above the burst.

use super::Misfit;

/// What is in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    window_ms: u64,
    /// In units times `window_ms`, as of `at`.
    level: u64,
    at: u64,
    /// When it is empty if nothing is added, at the limit that it was last brought to now with.
    empty_at: u64,
}

impl Bucket {
    /// A bucket with `used` units in it now.
    #[must_use]
    pub fn new(window_ms: u64, used: u64, now: u64) -> Self {
        let window_ms = window_ms.max(1);
        Self { window_ms, level: used.saturating_mul(window_ms), at: now, empty_at: u64::MAX }
    }

    /// Whether it has this shape.
    #[must_use]
    pub fn has_shape(&self, window_ms: u64) -> bool {
        self.window_ms == window_ms.max(1)
    }

    /// Brings it to now: what has flowed out since is gone. A clock that went back drains nothing;
    /// one that was a whole window ahead is forgiven.
    pub fn advance(&mut self, limit: u64, now: u64) {
        if self.at.saturating_sub(now) > self.window_ms {
            self.at = now;
        }
        if now > self.at {
            self.level = self.level.saturating_sub((now - self.at).saturating_mul(limit));
            self.at = now;
        }
        self.note(limit);
    }

    /// Whether `amount` more fits, and then what is left after it. It must be at now.
    ///
    /// # Errors
    /// It does not: when the same amount fits at the earliest.
    pub fn fits(&self, limit: u64, burst: u64, amount: u64) -> Result<u64, Misfit> {
        let full = burst.saturating_mul(self.window_ms);
        let level = self.level.saturating_add(amount.saturating_mul(self.window_ms));
        if level <= full && limit > 0 {
            return Ok((full - level) / self.window_ms);
        }
        let left = full.saturating_sub(self.level) / self.window_ms;
        let never = limit == 0 || amount > burst;
        let wait_ms = (!never).then(|| (level - full).div_ceil(limit));
        Err(Misfit { wait_ms, left })
    }

    /// Adds `amount`; answers when all of it will have flowed out in its turn, to the millisecond
    /// before.
    pub fn charge(&mut self, limit: u64, amount: u64) -> u64 {
        self.level = self.level.saturating_add(amount.saturating_mul(self.window_ms));
        self.note(limit);
        self.level.checked_div(limit).map_or(0, |time| self.at.saturating_add(time))
    }

    /// Adds, or takes back of what will have flowed out at `gone`. It must be at now.
    ///
    /// What has flowed out in its turn is no longer there to be given back: others may have come in
    /// its place, and with it they would have more than the burst and what flows back.
    pub fn correct(&mut self, limit: u64, gone: u64, difference: i64) {
        let scaled = difference.unsigned_abs().saturating_mul(self.window_ms);
        self.level = if difference < 0 {
            let there = gone.saturating_sub(self.at).saturating_mul(limit);
            self.level.saturating_sub(scaled.min(there))
        } else {
            self.level.saturating_add(scaled)
        };
        self.note(limit);
    }

    /// How many units are in it, rounded up. It must be at now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.level.div_ceil(self.window_ms)
    }

    /// From when on nothing is in it.
    #[must_use]
    pub fn empty_at(&self) -> u64 {
        self.empty_at
    }

    fn note(&mut self, limit: u64) {
        self.empty_at = match (self.level, limit) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (level, limit) => self.at.saturating_add(level.div_ceil(limit)),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bucket as it is drawn on a blackboard: in rational units, counted up from the beginning.
    struct Blackboard {
        level: f64,
        at: u64,
    }

    #[test]
    fn a_full_bucket_refills_by_the_limit_in_a_window() {
        let mut bucket = Bucket::new(60_000, 0, 1_000_000);
        assert_eq!(bucket.fits(60, 10, 10), Ok(0));
        bucket.charge(60, 10);
        assert_eq!(bucket.fits(60, 10, 1), Err(Misfit { wait_ms: Some(1_000), left: 0 }));
        bucket.advance(60, 1_000_999);
        assert_eq!(bucket.fits(60, 10, 1), Err(Misfit { wait_ms: Some(1), left: 0 }));
        bucket.advance(60, 1_001_000);
        assert_eq!(bucket.fits(60, 10, 1), Ok(0));
        assert_eq!(bucket.used(), 9);
    }

    #[test]
    fn what_is_above_the_burst_never_fits_and_a_limit_of_nothing_refuses_all() {
        let bucket = Bucket::new(1_000, 0, 0);
        assert_eq!(bucket.fits(5, 10, 11), Err(Misfit { wait_ms: None, left: 10 }));
        assert_eq!(bucket.fits(0, 10, 0), Err(Misfit { wait_ms: None, left: 10 }));
    }

    #[test]
    fn a_debt_is_worked_off_and_a_refund_never_goes_below_empty() {
        let mut bucket = Bucket::new(1_000, 0, 0);
        bucket.charge(10, 10);
        bucket.correct(10, 0, 20);
        assert_eq!(bucket.fits(10, 10, 1), Err(Misfit { wait_ms: Some(2_100), left: 0 }));
        bucket.advance(10, 2_100);
        assert_eq!(bucket.fits(10, 10, 1), Ok(0));
        bucket.correct(10, 1_000_000, -1_000);
        assert_eq!((bucket.used(), bucket.empty_at()), (0, 0));
    }

    #[test]
    fn what_has_flowed_out_in_its_turn_is_not_given_back() {
        let mut bucket = Bucket::new(1_000, 0, 0);
        let gone = bucket.charge(10, 10);
        assert_eq!(gone, 1_000);
        bucket.advance(10, 700);
        bucket.charge(10, 7);
        bucket.correct(10, gone, -10);
        assert_eq!(bucket.used(), 7, "the three that were still there");
        bucket.advance(10, 1_000);
        bucket.charge(10, 6);
        bucket.correct(10, gone, -10);
        assert_eq!(bucket.used(), 10);
    }

    #[test]
    fn a_clock_that_goes_back_drains_nothing_and_one_far_ahead_is_forgiven() {
        let mut bucket = Bucket::new(1_000, 10, 5_000);
        bucket.advance(10, 4_500);
        assert_eq!(bucket.used(), 10);
        bucket.advance(10, 5_000);
        assert_eq!(bucket.used(), 10, "the time that is gone through twice counts once");
        bucket.advance(10, 3_000);
        bucket.advance(10, 3_500);
        assert_eq!(bucket.used(), 5, "half a window from where the clock is now");
    }

    proptest! {
        #[test]
        fn it_admits_what_the_blackboard_admits_and_waits_are_exact(
            window_ms in 1_u64..100_000,
            limit in 1_u64..10_000,
            burst in 1_u64..10_000,
            steps in prop::collection::vec((0_u64..50_000, 0_u64..12_000), 1..60),
        ) {
            let mut now = 1_000_000;
            let mut bucket = Bucket::new(window_ms, 0, now);
            let mut board = Blackboard { level: 0.0, at: now };
            for (pause, amount) in steps {
                now += pause;
                let gone = (now - board.at) as f64 * limit as f64 / window_ms as f64;
                board.level = (board.level - gone).max(0.0);
                board.at = now;
                bucket.advance(limit, now);
                let before = bucket.clone();
                match bucket.fits(limit, burst, amount) {
                    Ok(_) => {
                        bucket.charge(limit, amount);
                        board.level += amount as f64;
                        prop_assert!(board.level <= burst as f64 + 1e-3);
                    }
                    Err(misfit) => {
                        prop_assert!(board.level + amount as f64 > burst as f64 - 1e-3);
                        prop_assert_eq!(&bucket, &before);
                        if let Some(wait) = misfit.wait_ms {
                            let mut then = bucket.clone();
                            then.advance(limit, now + wait);
                            prop_assert!(then.fits(limit, burst, amount).is_ok());
                            let mut early = bucket.clone();
                            early.advance(limit, now + wait - 1);
                            prop_assert!(early.fits(limit, burst, amount).is_err());
                        } else {
                            prop_assert!(amount > burst);
                        }
                    }
                }
                prop_assert_eq!(bucket.used() == 0, bucket.empty_at() == 0);
            }
        }
    }
}
