//! A budget: at most the limit in a calendar period.
//!
//! Whoever asks says which period it is, and is told where it is not the present one; so no job
//! ever resets anything. A period that was redefined keeps what was spent; one that is over does
//! not.

use super::Misfit;

/// What was spent in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    start_ms: u64,
    end_ms: u64,
    spent: u64,
}

impl Budget {
    /// The period [`start_ms`, `end_ms`) with so much spent.
    #[must_use]
    pub fn new(start_ms: u64, end_ms: u64, spent: u64) -> Self {
        Self { start_ms, end_ms, spent }
    }

    /// Whether it is of this period.
    #[must_use]
    pub fn has_shape(&self, start_ms: u64, end_ms: u64) -> bool {
        self.start_ms == start_ms && self.end_ms == end_ms
    }

    /// Whether `amount` more fits, and then what is left after it.
    ///
    /// # Errors
    /// It does not: how long the period still lasts.
    pub fn fits(&self, limit: u64, amount: u64, now: u64) -> Result<u64, Misfit> {
        if let Some(left) = Misfit::room(limit, self.spent, amount) {
            return Ok(left);
        }
        let never = limit == 0 || amount > limit;
        let wait_ms = (!never).then(|| self.end_ms.saturating_sub(now));
        Err(Misfit { wait_ms, left: limit.saturating_sub(self.spent) })
    }

    /// Spends `amount`.
    pub fn charge(&mut self, amount: u64) {
        self.spent = self.spent.saturating_add(amount);
    }

    /// Corrects what was spent in the period that began at `start_ms`. Of another period, what was
    /// spent less is dropped, and what was spent more is spent in this one.
    pub fn correct(&mut self, start_ms: Option<u64>, difference: i64) {
        if difference >= 0 {
            self.charge(difference.unsigned_abs());
        } else if start_ms == Some(self.start_ms) {
            self.spent = self.spent.saturating_sub(difference.unsigned_abs());
        }
    }

    /// What is spent of the period that now is in: nothing once it is over.
    #[must_use]
    pub fn used(&self, now: u64) -> u64 {
        if self.end_ms <= now { 0 } else { self.spent }
    }

    /// What was spent, whenever that was.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// From when on nothing of it matters.
    #[must_use]
    pub fn empty_at(&self) -> u64 {
        self.end_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_for_the_next_period() {
        let mut budget = Budget::new(100, 200, 0);
        assert_eq!(budget.fits(10, 10, 150), Ok(0));
        budget.charge(8);
        assert_eq!(budget.fits(10, 3, 150), Err(Misfit { wait_ms: Some(50), left: 2 }));
        assert_eq!(budget.fits(10, 11, 150), Err(Misfit { wait_ms: None, left: 2 }));
        assert_eq!(budget.fits(0, 0, 150), Err(Misfit { wait_ms: None, left: 0 }));
    }

    #[test]
    fn a_period_that_is_over_counts_nothing() {
        let budget = Budget::new(100, 200, 8);
        assert_eq!((budget.used(199), budget.used(200), budget.empty_at()), (8, 0, 200));
    }

    #[test]
    fn a_refund_of_another_period_is_dropped_and_an_excess_is_spent_in_this_one() {
        let mut budget = Budget::new(100, 200, 8);
        budget.correct(Some(0), -5);
        assert_eq!(budget.spent(), 8);
        budget.correct(Some(0), 1);
        budget.correct(Some(100), -5);
        assert_eq!(budget.spent(), 4);
        budget.correct(Some(100), -50);
        assert_eq!(budget.spent(), 0, "never below nothing");
    }
}
