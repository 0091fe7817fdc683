//! A worker's source of random numbers: cryptographic, and drawn in batches.
//!
//! A request needs a handful of numbers (its id, a choice between targets, a jitter). Asking the
//! generator for each would cost more than the number is worth, so a batch is kept per worker.

use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::rand;

use super::RequestId;

/// Bytes drawn at once: 32 ids, little enough to sit in the cache.
const BATCH: usize = 512;

/// Random numbers for one thread.
pub struct Random {
    batch: RefCell<Batch>,
}

struct Batch {
    bytes: [u8; BATCH],
    used: usize,
}

impl Random {
    /// A source that has drawn nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { batch: RefCell::new(Batch { bytes: [0; BATCH], used: BATCH }) }
    }

    /// A new id for a request.
    #[must_use]
    pub fn next_id(&self) -> RequestId {
        RequestId::from_random(self.take())
    }

    /// A number, uniform over all 64 bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// The next `N` bytes, each used once only. A rest that is too short is thrown away.
    fn take<const N: usize>(&self) -> [u8; N] {
        let mut batch = self.batch.borrow_mut();
        if batch.used + N > BATCH {
            rand::fill(&mut batch.bytes).expect("aws-lc ends the process rather than fail here");
            batch.used = 0;
        }
        let start = batch.used;
        batch.used += N;
        let taken = batch.bytes.get(start..start + N).and_then(|bytes| bytes.try_into().ok());
        taken.expect("a batch is larger than anything taken from it")
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The numbers to come are nobody's business.
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_do_not_repeat_within_or_across_batches() {
        let random = Random::new();
        let ids: HashSet<_> = (0..1000).map(|_| random.next_id()).collect();
        assert_eq!(ids.len(), 1000);
        let numbers: HashSet<_> = (0..1000).map(|_| random.next_u64()).collect();
        assert_eq!(numbers.len(), 1000);
    }

    #[test]
    fn an_odd_rest_is_thrown_away_and_never_reused() {
        let random = Random::new();
        let mut seen = HashSet::new();
        for _ in 0..500 {
            assert!(seen.insert(random.next_u64()));
            let id = random.next_id().to_hex();
            assert!(id.iter().any(|digit| *digit != b'0'));
        }
    }
}
