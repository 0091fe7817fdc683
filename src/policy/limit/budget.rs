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
