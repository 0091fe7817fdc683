//! Permits: at most so many at the same time. Each is a lease, so that a holder that dies gives its
//! permit back.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Misfit;

/// Who holds a permit: a request (16 bytes) or an attempt (17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PermitHolder {
    bytes: [u8; 17],
    of_attempt: bool,
}

/// The permits that are out under one limit of one scope.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    /// Holder and end of the lease.
    held: HashMap<PermitHolder, u64, RandomState>,
    /// No lease ends before.
    earliest_end: u64,
}

impl PermitHolder {
    /// The request of this id, with all of its attempts.
    #[must_use]
    pub fn request(mut id: [u8; 17]) -> Self {
        id[16] = 0;
        Self { bytes: id, of_attempt: false }
    }

    /// The attempt of this id.
    #[must_use]
    pub fn attempt(id: [u8; 17]) -> Self {
        Self { bytes: id, of_attempt: true }
    }
}

impl Permits {
    /// Whether `amount` more fit, and then how many are left after them. Leases that have ended
    /// count until somebody needs their place.
    ///
    /// # Errors
    /// They do not; nobody knows when.
    pub fn fits(&self, limit: u64, amount: u64, now: u64) -> Result<u64, Misfit> {
        let all = self.held.len() as u64;
        if let Some(left) = Misfit::room(limit, all, amount) {
            return Ok(left);
        }
        let alive = self.alive(now);
        let misfit = Misfit { wait_ms: None, left: limit.saturating_sub(alive) };
        Misfit::room(limit, alive, amount).ok_or(misfit)
    }

    /// Gives a permit until `lease_end`. Where there is no room for it otherwise, leases that have
    /// ended are cleared away first.
    pub fn acquire(&mut self, holder: PermitHolder, limit: u64, lease_end: u64, now: u64) {
        if self.held.len() as u64 >= limit && self.earliest_end <= now {
            self.held.retain(|_, end| *end > now);
            self.earliest_end = self.held.values().copied().min().unwrap_or(u64::MAX);
        }
        self.renew(holder, lease_end);
    }

    /// Moves the end of a lease; one that is gone is registered again.
    pub fn renew(&mut self, holder: PermitHolder, lease_end: u64) {
        let first = self.held.is_empty();
        self.earliest_end = if first { lease_end } else { self.earliest_end.min(lease_end) };
        self.held.insert(holder, lease_end);
    }

    /// Gives the permit back.
    pub fn release(&mut self, holder: &PermitHolder) {
        self.held.remove(holder);
    }

    /// Gives the permit back if its lease has ended.
    pub fn reclaim(&mut self, holder: &PermitHolder, now: u64) {
        if self.held.get(holder).is_some_and(|end| *end <= now) {
            self.held.remove(holder);
        }
    }

    /// How many leases have not ended.
    #[must_use]
    pub fn alive(&self, now: u64) -> u64 {
        if self.earliest_end > now {
            return self.held.len() as u64;
        }
        self.held.values().filter(|end| **end > now).count() as u64
    }

    /// Whether nobody holds any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Clears away all leases that have ended.
    pub fn clear(&mut self, now: u64) {
        self.held.retain(|_, end| *end > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(number: u8) -> PermitHolder {
        PermitHolder::attempt([number; 17])
    }

    fn full() -> Permits {
        let mut permits = Permits::default();
        (0..3).for_each(|number| permits.acquire(holder(number), 3, 10 + u64::from(number), 0));
        permits
    }

    #[test]
    fn a_place_is_free_when_its_lease_has_ended_and_not_before() {
        let permits = full();
        assert_eq!(permits.fits(3, 1, 9), Err(Misfit { wait_ms: None, left: 0 }));
        assert_eq!(permits.fits(3, 1, 10), Ok(0));
        assert_eq!((permits.alive(9), permits.alive(11), permits.alive(12)), (3, 1, 0));
    }

    // Holders that died must not pile up.
    #[test]
    fn leases_that_have_ended_are_cleared_away_when_their_place_is_needed() {
        let mut permits = full();
        for now in 100..1_000_u64 {
            assert!(permits.fits(3, 1, now).is_ok(), "{now}");
            permits.acquire(PermitHolder::attempt([now as u8; 17]), 3, now + 1, now);
            assert!(permits.held.len() <= 3);
        }
    }

    #[test]
    fn a_request_and_its_attempt_are_two_holders() {
        let mut permits = Permits::default();
        permits.renew(PermitHolder::request([1; 17]), 10);
        permits.renew(PermitHolder::attempt([1; 17]), 10);
        assert_eq!(permits.alive(0), 2);
        // Whichever attempt speaks for the request.
        let mut other_attempt = [1; 17];
        other_attempt[16] = 9;
        permits.release(&PermitHolder::request(other_attempt));
        permits.reclaim(&PermitHolder::attempt([1; 17]), 9);
        assert_eq!(permits.alive(0), 1);
        permits.reclaim(&PermitHolder::attempt([1; 17]), 10);
        assert!(permits.is_empty());
    }
}
