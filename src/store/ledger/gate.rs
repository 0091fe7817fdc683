//! Which tags are asked again when: a pure state machine.
//!
//! A node that was cut off comes back in this order: first it registers the leases that the store
//! may have lost or never had, then it asks for new admissions, then it tells what it has kept. Of a
//! tag with such leases nothing new is asked until they are registered, and no batch is sent: the
//! store would otherwise give permits that are held here to somebody else.
//!
//! A tag whose leases are only being told for the first time, by a store that answers, stays open:
//! they are registered within a moment.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// The pause before leases are told again, the first time and at most; halved at random, so that
/// many nodes do not come back at once.
const AGAIN_MS: (u64, u64) = (100, 1_000);

/// Between two times that new leases of a tag are told to a store that answers.
const PAUSE_MS: u64 = 50;

/// What follows from a lease that the store may not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// There is something to do that was not known before.
    pub(super) new: bool,
    /// Batches of the tag are to be held from now on.
    pub(super) hold: bool,
}

/// Tags with leases that the store may not know.
#[derive(Debug, Default)]
pub(super) struct Gate {
    tags: HashMap<Arc<str>, Untold, RandomState>,
    /// The last command was not answered.
    away: bool,
}

#[derive(Debug)]
struct Untold {
    /// From when on nothing new is asked.
    shut_at: u64,
    /// When its leases are told; none while they are being told.
    next: Option<u64>,
    wait: u64,
    /// Commands under way.
    pending: usize,
    /// One of them was not answered.
    failed: bool,
    /// More leases came in the meantime.
    again: bool,
    /// Its batches are held back on its behalf.
    held: bool,
}

impl Gate {
    /// There are leases of this tag that the store never had.
    pub(super) fn unregistered(&mut self, tag: &Arc<str>, now: u64) -> Wanted {
        let shut_at = if self.away { now } else { u64::MAX };
        self.want(tag, now, shut_at, self.away)
    }

    /// Leases of this tag could not be renewed and end at `lapse`.
    pub(super) fn not_renewed(&mut self, tag: &Arc<str>, now: u64, lapse: u64) -> Wanted {
        self.away = true;
        self.want(tag, now, lapse, true)
    }

    /// A command was answered, or it was not.
    pub(super) fn heard(&mut self, answered: bool) {
        self.away = !answered;
    }

    /// Whether the last command was not answered.
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Whether nothing new is to be asked of this tag.
    pub(super) fn is_shut(&self, tag: &str, now: u64) -> bool {
        self.tags.get(tag).is_some_and(|untold| untold.shut_at <= now)
    }

    /// Tags whose leases are to be told now, at most so many. Each is told, or
    /// forgotten.
    pub(super) fn due(&self, now: u64, most: usize) -> Vec<Arc<str>> {
        let due = self.tags.iter().filter(|(_, untold)| untold.next.is_some_and(|at| at <= now));
        due.take(most).map(|(tag, _)| Arc::clone(tag)).collect()
    }

    /// When something is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.tags.values().filter_map(|untold| untold.next).min()
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The leases of this tag are going to be told: what comes from here on is told next time.
    pub(super) fn telling(&mut self, tag: &str) {
        if let Some(untold) = self.tags.get_mut(tag) {
            (untold.next, untold.failed, untold.again) = (None, false, false);
        }
    }

    /// They are told in so many commands. True if batches are to be held from now on.
    pub(super) fn expect(&mut self, tag: &str, commands: usize) -> bool {
        let Some(untold) = self.tags.get_mut(tag) else { return false };
        untold.pending = commands;
        !std::mem::replace(&mut untold.held, true)
    }

    /// One of these commands came to an end. True if batches need not be held any more.
    pub(super) fn told(&mut self, tag: &str, answered: bool, now: u64, random: u64) -> bool {
        let Some(untold) = self.tags.get_mut(tag) else { return false };
        untold.pending = untold.pending.saturating_sub(1);
        untold.failed |= !answered;
        if untold.pending > 0 {
            return false;
        }
        if untold.failed {
            // Whatever came before: the store does not answer.
            untold.shut_at = untold.shut_at.min(now);
            untold.next = Some(now + untold.wait / 2 + random % (untold.wait / 2 + 1));
            untold.wait = (untold.wait * 2).min(AGAIN_MS.1);
            false
        } else if untold.again {
            // In between its batches have their turn.
            (untold.shut_at, untold.next) = (u64::MAX, Some(now + PAUSE_MS));
            std::mem::take(&mut untold.held)
        } else {
            self.tags.remove(tag).is_some_and(|untold| untold.held)
        }
    }

    fn want(&mut self, tag: &Arc<str>, now: u64, shut_at: u64, hold: bool) -> Wanted {
        let new = !self.tags.contains_key(tag);
        let untold = self.tags.entry(Arc::clone(tag)).or_insert_with(|| Untold {
            shut_at,
            next: Some(now),
            wait: AGAIN_MS.0,
            pending: 0,
            failed: false,
            again: false,
            held: false,
        });
        untold.shut_at = untold.shut_at.min(shut_at);
        untold.again = true;
        let hold = hold && !untold.held;
        untold.held |= hold;
        Wanted { new, hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> Arc<str> {
        "t:a".into()
    }

    #[test]
    fn a_tag_is_shut_until_its_leases_are_registered() {
        let mut gate = Gate::default();
        gate.heard(false);
        assert_eq!(gate.unregistered(&tag(), 0), Wanted { new: true, hold: true });
        assert_eq!(gate.unregistered(&tag(), 0), Wanted { new: false, hold: false });
        assert!(gate.is_shut("t:a", 0) && !gate.is_shut("t:b", 0));
        assert_eq!(gate.due(0, 9), [tag()]);
        gate.telling("t:a");
        assert!(!gate.expect("t:a", 2), "they are held already");
        assert_eq!((gate.due(9, 9).len(), gate.next_due()), (0, None));
        assert!(!gate.told("t:a", true, 1, 0), "one of two");
        assert!(!gate.told("t:a", false, 2, u64::MAX));
        assert!(gate.is_shut("t:a", 2));
        let next = gate.next_due().expect("once more");
        assert!((52..=102).contains(&next), "{next}");
        gate.telling("t:a");
        gate.expect("t:a", 1);
        assert!(gate.told("t:a", true, next, 0));
        assert!(!gate.is_shut("t:a", next) && gate.is_empty());
    }

    #[test]
    fn leases_that_come_while_others_are_told_are_told_next_and_shut_nothing() {
        let mut gate = Gate::default();
        gate.heard(false);
        gate.unregistered(&tag(), 0);
        gate.telling("t:a");
        gate.expect("t:a", 1);
        gate.unregistered(&tag(), 1);
        assert!(gate.told("t:a", true, 2, 0), "batches go in between");
        assert!(!gate.is_shut("t:a", 2));
        assert_eq!(gate.due(2 + PAUSE_MS, 9), [tag()]);
        gate.telling("t:a");
        assert!(gate.expect("t:a", 1), "and not while leases are told");
        assert!(gate.told("t:a", true, 60, 0));
        assert!(gate.is_empty());
    }

    #[test]
    fn a_store_that_answers_is_asked_while_it_is_told() {
        let mut gate = Gate::default();
        gate.unregistered(&tag(), 0);
        assert!(!gate.is_shut("t:a", 0));
        gate.telling("t:a");
        gate.expect("t:a", 1);
        gate.told("t:a", false, 1, 0);
        assert!(gate.is_shut("t:a", 1), "it does not answer after all");
    }

    #[test]
    fn leases_that_are_not_renewed_shut_their_tag_when_they_end() {
        let mut gate = Gate::default();
        gate.not_renewed(&tag(), 0, 600);
        gate.telling("t:a");
        assert!(!gate.is_shut("t:a", 599) && gate.is_shut("t:a", 600));
        assert!(gate.told("t:a", true, 600, 0));
        assert!(!gate.is_shut("t:a", 600));
    }
}
