//! The simulator's dice: one seedable source per worker, so that a run can be repeated.

use std::cell::Cell;
use std::time::Duration;

/// A random source (SplitMix64): fast, small, and good enough for delays and ids.
#[derive(Debug)]
pub(super) struct Chance(Cell<u64>);

impl Chance {
    /// A source that yields the same numbers for the same seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// The next number.
    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number, evenly spread over 0 (included) to 1 (excluded).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    pub(super) fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in this share of all calls; draws nothing for a share of 0.
    pub(super) fn hits(&self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }

    /// `delay`, up to `jitter` (a share of it) shorter or longer.
    pub(super) fn around(&self, delay: Duration, jitter: f64) -> Duration {
        if jitter <= 0.0 || delay.is_zero() {
            return delay;
        }
        delay.mul_f64((1.0 + jitter * (2.0 * self.unit() - 1.0)).max(0.0))
    }

    /// A source of its own, whose numbers no longer depend on who else draws from this one.
    pub(super) fn fork(&self) -> Self {
        Self::new(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_numbers() {
        let (one, two) = (Chance::new(7), Chance::new(7));
        assert_eq!([one.next(), one.next()], [two.next(), two.next()]);
        assert_ne!(one.next(), Chance::new(8).next());
    }

    #[test]
    fn jitter_stays_within_its_share_and_uses_all_of_it() {
        let dice = Chance::new(1);
        let delay = Duration::from_millis(100);
        let drawn: Vec<_> = (0..1_000).map(|_| dice.around(delay, 0.2)).collect();
        let (least, most) = (drawn.iter().min(), drawn.iter().max());
        assert!(
            least >= Some(&Duration::from_millis(80)) && most <= Some(&Duration::from_millis(120))
        );
        assert!(
            least < Some(&Duration::from_millis(85)) && most > Some(&Duration::from_millis(115))
        );
    }

    #[test]
    fn a_share_is_hit_about_as_often_as_it_says() {
        let dice = Chance::new(2);
        let hits = (0..10_000).filter(|_| dice.hits(0.1)).count();
        assert!((800..1_200).contains(&hits), "{hits} of 10000");
        assert!(!dice.hits(0.0));
        assert!(dice.hits(1.0));
    }
}
