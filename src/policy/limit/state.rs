//! The state of one limit in one scope, whichever way it counts.
//!
//! A limit whose window or algorithm changes under its id does not start from nothing: what was
//! used of it goes to the newest slot, or into the level.

use super::bucket::Bucket;
use super::budget::Budget;
use super::window::Window;
use super::{Algorithm, Misfit, Rule};

/// What is kept of a limit. Permits are kept elsewhere, because they are leases and not amounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Of a sliding window.
    Window(Window),
    /// Of a token bucket.
    Bucket(Bucket),
    /// Of a budget.
    Budget(Budget),
}

impl State {
    /// A state of this rule's shape with `used` counted now; none for permits.
    #[must_use]
    pub fn new(rule: &Rule, used: u64, now: u64) -> Option<Self> {
        match rule.algorithm {
            Algorithm::Window { slot_ms, slots } => {
                Some(Self::Window(Window::new(slot_ms, slots, used, now)))
            }
            Algorithm::Bucket { window_ms, .. } => {
                let mut bucket = Bucket::new(window_ms, used, now);
                bucket.advance(rule.limit, now);
                Some(Self::Bucket(bucket))
            }
            Algorithm::Budget { start_ms, end_ms } => {
                Some(Self::Budget(Budget::new(start_ms, end_ms, used)))
            }
            Algorithm::Permits => None,
        }
    }

    /// Whether `brought_to` would give the same again.
    #[must_use]
    pub fn is_at(&self, rule: &Rule, now: u64) -> bool {
        match self {
            Self::Window(window) => self.has_shape(rule) && window.is_at(now),
            // It drains with every millisecond.
            Self::Bucket(_) => false,
            Self::Budget(_) => self.has_shape(rule),
        }
    }

    /// The same state now, in the shape that the rule has.
    #[must_use]
    pub fn brought_to(mut self, rule: &Rule, now: u64) -> Option<Self> {
        self.advance(rule.limit, now);
        if self.has_shape(rule) {
            return Some(self);
        }
        Self::new(rule, self.used(now), now)
    }

    /// The same state now, in its own shape.
    pub fn advance(&mut self, limit: u64, now: u64) {
        match self {
            Self::Window(window) => window.advance(now),
            Self::Bucket(bucket) => bucket.advance(limit, now),
            Self::Budget(_) => {}
        }
    }

    /// Whether `amount` more fits, and then what is left after it. It must be at now.
    ///
    /// # Errors
    /// It does not, and for how long.
    pub fn fits(&self, rule: &Rule, amount: u64, now: u64) -> Result<u64, Misfit> {
        match (self, rule.algorithm) {
            (Self::Window(window), _) => window.fits(rule.limit, amount, now),
            (Self::Bucket(bucket), Algorithm::Bucket { burst, .. }) => {
                bucket.fits(rule.limit, burst, amount)
            }
            (Self::Bucket(bucket), _) => bucket.fits(rule.limit, rule.limit, amount),
            (Self::Budget(budget), _) => budget.fits(rule.limit, amount, now),
        }
    }

    /// Counts `amount`; answers in which slot, or until when, for a later correction.
    pub fn charge(&mut self, rule: &Rule, amount: u64) -> u64 {
        match self {
            Self::Window(window) => window.charge(amount),
            Self::Bucket(bucket) => bucket.charge(rule.limit, amount),
            Self::Budget(budget) => {
                budget.charge(amount);
                0
            }
        }
    }

    /// Corrects what was charged under this rule in this slot; none: what counts now. It must be at
    /// now. Where the limit has changed its shape since, a refund is dropped and an excess counts
    /// now.
    pub fn correct(&mut self, rule: &Rule, slot: Option<u64>, difference: i64) {
        let same = self.has_shape(rule);
        match self {
            Self::Window(window) => window.correct(slot.filter(|_| same), difference),
            Self::Bucket(bucket) => bucket.correct(rule.limit, slot.unwrap_or(0), difference),
            Self::Budget(budget) => {
                let start = match rule.algorithm {
                    Algorithm::Budget { start_ms, .. } => Some(start_ms),
                    _ => None,
                };
                budget.correct(start, difference);
            }
        }
    }

    /// How much is used now. It must be at now.
    #[must_use]
    pub fn used(&self, now: u64) -> u64 {
        match self {
            Self::Window(window) => window.used(),
            Self::Bucket(bucket) => bucket.used(),
            Self::Budget(budget) => budget.used(now),
        }
    }

    /// In which slot an amount counts now, if it is a window. It must be at now.
    #[must_use]
    pub fn head(&self) -> u64 {
        match self {
            Self::Window(window) => window.head(),
            Self::Bucket(_) | Self::Budget(_) => 0,
        }
    }

    /// From when on it says no more than an absent state.
    #[must_use]
    pub fn empty_at(&self) -> u64 {
        match self {
            Self::Window(window) => window.empty_at(),
            Self::Bucket(bucket) => bucket.empty_at(),
            Self::Budget(budget) => budget.empty_at(),
        }
    }

    fn has_shape(&self, rule: &Rule) -> bool {
        match (self, rule.algorithm) {
            (Self::Window(window), Algorithm::Window { slot_ms, slots }) => {
                window.has_shape(slot_ms, slots)
            }
            (Self::Bucket(bucket), Algorithm::Bucket { window_ms, .. }) => {
                bucket.has_shape(window_ms)
            }
            (Self::Budget(budget), Algorithm::Budget { start_ms, end_ms }) => {
                budget.has_shape(start_ms, end_ms)
            }
            _ => false,
        }
    }
}
