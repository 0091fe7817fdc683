//! A sliding window: at most the limit in any window of that length.
//!
//! # How
//! Time is cut into slots, and an amount counts in the slot that it came in. The window that ends
//! now touches `slots + 1` of them, of the oldest only a part: all of them are counted whole. So no
//! true window ever has more than the limit, and under saturating demand it has at least
//! `slots / (slots + 1)` of it.
//!
//! # Why this way
//! A log of all admissions is exact, but grows with the limit. Two weighted halves are small, but
//! admit nearly twice the limit at their worst.
//!
//! # A clock that is not steady
//! One that went back leaves the newest slot where it is. One that was a whole window ahead and is
//! right again takes the total along, into the slot that is now: nothing is forgotten.

use super::Misfit;

/// What is counted in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    slot_ms: u64,
    slots: u64,
    /// The newest slot that was counted in.
    head: u64,
    /// The sum of all slots of the window.
    total: u64,
    /// What is counted in the newest slot; its place in the ring is 0.
    newest: u64,
    /// The other slots, each at its number modulo `slots + 1`. Empty while all are 0.
    ring: Vec<u64>,
}

impl Window {
    /// A window of `slots` slots, at least 1 of at least 1 ms, with `used` counted now.
    #[must_use]
    pub fn new(slot_ms: u64, slots: u32, used: u64, now: u64) -> Self {
        let (slot_ms, slots) = (slot_ms.max(1), u64::from(slots.max(1)));
        let head = now / slot_ms;
        Self { slot_ms, slots, head, total: used, newest: used, ring: Vec::new() }
    }

    /// Whether it has this shape.
    #[must_use]
    pub fn has_shape(&self, slot_ms: u64, slots: u32) -> bool {
        self.slot_ms == slot_ms.max(1) && self.slots == u64::from(slots.max(1))
    }

    /// Whether `advance` would change nothing.
    #[must_use]
    pub fn is_at(&self, now: u64) -> bool {
        let slot = now / self.slot_ms;
        slot <= self.head && self.head - slot <= self.slots
    }

    /// Brings it to now: what has left the window is not counted any more.
    pub fn advance(&mut self, now: u64) {
        if self.is_at(now) {
            return;
        }
        let slot = now / self.slot_ms;
        if slot < self.head {
            self.newest = self.total;
            self.ring.clear();
        } else if slot - self.head > self.slots {
            (self.total, self.newest) = (0, 0);
            self.ring.clear();
        } else {
            self.put(self.head, self.newest);
            self.newest = 0;
            for gone in self.oldest()..slot.saturating_sub(self.slots) {
                self.total = self.total.saturating_sub(self.get(gone));
                self.put(gone, 0);
            }
        }
        self.head = slot;
    }

    /// Whether `amount` more fits, and then what is left after it. It must be at now.
    ///
    /// # Errors
    /// It does not: when the same amount fits at the earliest.
    pub fn fits(&self, limit: u64, amount: u64, now: u64) -> Result<u64, Misfit> {
        if let Some(left) = Misfit::room(limit, self.total, amount) {
            return Ok(left);
        }
        let left = limit.saturating_sub(self.total);
        if limit == 0 || amount > limit {
            return Err(Misfit { wait_ms: None, left });
        }
        let mut total = self.total;
        for slot in self.oldest()..=self.head {
            total = total.saturating_sub(self.count(slot));
            if total.saturating_add(amount) <= limit {
                let leaves = (slot + self.slots + 1).saturating_mul(self.slot_ms);
                return Err(Misfit { wait_ms: Some(leaves.saturating_sub(now)), left });
            }
        }
        Err(Misfit { wait_ms: None, left })
    }

    /// Counts `amount` now; answers the slot that it is counted in.
    pub fn charge(&mut self, amount: u64) -> u64 {
        self.newest = self.newest.saturating_add(amount);
        self.total = self.total.saturating_add(amount);
        self.head
    }

    /// Corrects what was counted in `slot`, if it is still in the window. If not, what was used
    /// less is dropped, and what was used more counts now. It must be at now.
    pub fn correct(&mut self, slot: Option<u64>, difference: i64) {
        let slot = slot.filter(|slot| *slot >= self.oldest());
        if slot.is_none() && difference < 0 {
            return;
        }
        // A slot ahead of the head: the clock went back, and the head took its count along.
        let slot = slot.unwrap_or(self.head).min(self.head);
        let more = difference.max(0).unsigned_abs();
        let less = difference.min(0).unsigned_abs().min(self.count(slot));
        let corrected = self.count(slot).saturating_add(more) - less;
        if slot == self.head {
            self.newest = corrected
        } else {
            self.put(slot, corrected)
        }
        self.total = self.total.saturating_add(more).saturating_sub(less);
    }

    /// What is counted. It must be at now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.total
    }

    /// Which slot is counted in now. It must be at now.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// From when on nothing is counted.
    #[must_use]
    pub fn empty_at(&self) -> u64 {
        if self.total == 0 { 0 } else { (self.head + self.slots + 1).saturating_mul(self.slot_ms) }
    }

    fn oldest(&self) -> u64 {
        self.head.saturating_sub(self.slots)
    }

    fn count(&self, slot: u64) -> u64 {
        if slot == self.head { self.newest } else { self.get(slot) }
    }

    fn place(&self, slot: u64) -> usize {
        usize::try_from(slot % (self.slots + 1)).expect("a ring has few slots")
    }

    fn get(&self, slot: u64) -> u64 {
        self.ring.get(self.place(slot)).copied().unwrap_or(0)
    }

    fn put(&mut self, slot: u64, count: u64) {
        let place = self.place(slot);
        if self.ring.is_empty() {
            if count == 0 {
                return;
            }
            self.ring = vec![0; usize::try_from(self.slots + 1).expect("a ring has few slots")];
        }
        if let Some(kept) = self.ring.get_mut(place) {
            *kept = count;
        }
    }
}

#[cfg(test)]
mod tests;
