//! What a worker asks: one admission over several tags, all or nothing.
//!
//! The tags are asked at the same time. If one refuses, what the others took is given back under
//! the same id; until then they may refuse others for one round trip, and never admit too much.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use smallvec::SmallVec;

use super::degraded::Not;
use super::known::Known;
use super::ledger::{Entry, Haste};
use super::link::{Link, Silent};
use super::reservation::{self, Part, Reservation};
use super::{HOUR_MS, Store};
use crate::policy::limit::{Admit, Algorithm, Counts, Origin, Refusal, Row, Verdict};

/// One worker's way to limits. Clones are the same limiter.
#[derive(Clone, Debug)]
pub struct Limiter(pub(super) Rc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Arc<Store>,
    pub(super) link: Link,
    /// Limits that have just refused.
    known: RefCell<Known>,
}

/// Why an attempt is not admitted. Nothing is taken then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A limit refused. Of several that did, the one that has to be waited for the longest.
    Refused {
        /// On which tag: an index into the admits.
        admit: usize,
        /// Which limit, and for how long.
        refusal: Refusal,
    },
    /// The store does not answer, and this limit is to be closed then.
    Unavailable {
        /// An index into the admits.
        admit: usize,
        /// An index into its charges.
        charge: usize,
    },
    /// A budget was asked for in a period that the store's clock is not in: find the period at
    /// this time, and ask again, once.
    StalePeriod {
        /// The store's time, in milliseconds of Unix time.
        now_ms: u64,
    },
}

/// Admits that were asked for and not yet answered. Dropped, it takes all of them back.
struct Asking<'a> {
    inner: &'a Rc<Inner>,
    admits: Option<Arc<[Admit]>>,
}

impl Limiter {
    /// A limiter for the thread that it is made on.
    #[must_use]
    pub fn new(store: &Arc<Store>) -> Self {
        let (store, link) = (Arc::clone(store), store.link());
        Self(Rc::new(Inner { store, link, known: RefCell::default() }))
    }

    /// The node's store.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Takes all charges of all tags, or none. An admit that may be cancelled because another tag
    /// refuses is a `member`, or asks for permits only. Each call has an id of its own, also after
    /// one that was denied: an id that was taken back stays known until its deadline.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Cancellation
    /// What was taken when the future is dropped is given back.
    pub async fn admit(&self, admits: impl Into<Arc<[Admit]>>) -> Result<Reservation, Denied> {
        let mut admits: Arc<[Admit]> = admits.into();
        if let Some(denied) = self.0.known(&admits) {
            return Err(denied);
        }
        // What is asked while no answer may come has to be taken back then, so it is a member.
        let doubtful = |admit: &Admit| !admit.member && !self.0.link.is_up(&admit.tag);
        if admits.iter().any(doubtful) {
            admits = admits.iter().map(|admit| Admit { member: true, ..admit.clone() }).collect();
        }
        let asking = Asking { inner: &self.0, admits: Some(Arc::clone(&admits)) };
        let verdicts: SmallVec<[Result<Verdict, Silent>; 2]> = match &*admits {
            [one] => SmallVec::from_iter([self.0.ask(one).await]),
            all => join_all(all.iter().map(|admit| self.0.ask(admit))).await.into(),
        };
        asking.answered();
        let mut denied = None;
        let mut parts: SmallVec<[Part; 2]> = SmallVec::new();
        let mut left = Vec::with_capacity(admits.len());
        for (place, (admit, verdict)) in admits.iter().zip(verdicts).enumerate() {
            let (part, rest) = match self.decide(place, admit, verdict) {
                Ok(taken) => taken,
                Err((why, part)) => {
                    denied = Some(graver(&admits, denied, why));
                    (part, Vec::new())
                }
            };
            parts.push(part);
            left.push(rest);
        }
        if let Some(denied) = denied {
            reservation::cancel(&self.0.store, &admits, &parts);
            // Another attempt of this request may ask for its permits again, under the same name:
            // they must be given back before, not after.
            for (admit, _) in admits.iter().zip(&parts).filter(|(_, part)| part.is_held()) {
                self.0.store.flushed(&admit.tag).await;
            }
            return Err(denied);
        }
        Ok(Reservation::new(Rc::clone(&self.0), admits, left, parts))
    }

    /// Adds usage of an attempt that had no reservation.
    pub fn record(&self, tag: Arc<str>, row: Row, counts: Counts) {
        let hour = self.0.store.now_ms() / HOUR_MS;
        let entry = Entry { tag, settle: None, usage: Some((hour, row, counts)) };
        self.0.store.post(entry, Haste::Settle);
    }

    /// Waits until what was said so far about this tag is in force, for a bounded time: what one
    /// attempt gives back may be what the next one needs.
    pub async fn flushed(&self, tag: &Arc<str>) {
        self.0.store.flushed(tag).await;
    }

    /// What became of one tag's part: what is held, and what is left of its limits.
    fn decide(
        &self,
        place: usize,
        admit: &Admit,
        verdict: Result<Verdict, Silent>,
    ) -> Result<(Part, Vec<u64>), (Denied, Part)> {
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(silent) => return self.decide_alone(place, admit, silent),
        };
        if let Some(alone) = self.0.store.alone() {
            alone.heard();
        }
        match verdict {
            Verdict::Admitted(left) => Ok((Part::held(Origin::Member), left)),
            // The answer to an earlier copy of this command was lost.
            Verdict::Duplicate => Ok((Part::held(Origin::Member), Vec::new())),
            Verdict::Refused(refusal) => {
                self.0.note(admit, refusal);
                Err((Denied::Refused { admit: place, refusal }, Part::none()))
            }
            // `Late` is no verdict, and was sorted out where it came from.
            Verdict::StalePeriod | Verdict::Late => {
                let theirs = self.0.link.now_ms(&admit.tag);
                let now_ms = theirs.unwrap_or_else(|| self.0.store.now_ms());
                Err((Denied::StalePeriod { now_ms }, Part::none()))
            }
        }
    }

    /// The same without a verdict, by the rules of the limits.
    fn decide_alone(
        &self,
        place: usize,
        admit: &Admit,
        silent: Silent,
    ) -> Result<(Part, Vec<u64>), (Denied, Part)> {
        if silent == Silent::InDoubt {
            // What may still be taken there is given back; the truth is charged when the attempt
            // is settled.
            let one = std::slice::from_ref(admit);
            reservation::cancel(&self.0.store, one, &[Part::unknown()]);
        }
        let alone = self.0.store.alone();
        let decided = alone.map_or(Err(Not::Closed(0)), |alone| alone.admit(admit));
        let denied = match decided {
            Ok((aside, left)) => return Ok((Part::elsewhere(aside, silent), left)),
            Err(Not::Closed(charge)) => Denied::Unavailable { admit: place, charge },
            Err(Not::Refused(refusal)) => Denied::Refused { admit: place, refusal },
            Err(Not::StalePeriod(now_ms)) => Denied::StalePeriod { now_ms },
        };
        Err((denied, Part::none()))
    }
}

impl Inner {
    /// The refusal of a limit that is known to be over.
    fn known(&self, admits: &[Admit]) -> Option<Denied> {
        let known = self.known.borrow();
        if known.is_empty() {
            return None;
        }
        let now = self.store.now_ms();
        let refused = |(place, admit): (usize, &Admit)| Some((place, known.refuses(admit, now)?));
        let (admit, refusal) = admits.iter().enumerate().find_map(refused)?;
        self.store.metrics.refused_locally();
        Some(Denied::Refused { admit, refusal })
    }

    /// Remembers a refusal, where asking again is a way to go.
    fn note(&self, admit: &Admit, refusal: Refusal) {
        if matches!(self.link, Link::Redis(_)) {
            self.known.borrow_mut().note(admit, refusal, self.store.now_ms());
        }
    }

    /// Asks one tag, unless leases that are held there have to be registered first.
    async fn ask(&self, admit: &Admit) -> Result<Verdict, Silent> {
        if self.store.is_shut(&admit.tag) {
            return Err(Silent::Unasked);
        }
        self.link.ask(admit).await
    }
}

impl Asking<'_> {
    fn answered(mut self) {
        self.admits = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(admits) = self.admits.take() {
            let parts: SmallVec<[Part; 2]> = admits.iter().map(|_| Part::unknown()).collect();
            reservation::cancel(&self.inner.store, &admits, &parts);
        }
    }
}

/// Of two reasons the one that a client has to hear: a period that is to be found first, then a
/// limit that cannot be asked, then the longest wait.
fn graver(admits: &[Admit], one: Option<Denied>, other: Denied) -> Denied {
    let weight = |denied: &Denied| match denied {
        Denied::StalePeriod { .. } => (2, 0),
        Denied::Unavailable { .. } => (1, 0),
        Denied::Refused { admit, refusal } => {
            let charge = admits.get(*admit).and_then(|admit| admit.charges.get(refusal.charge));
            let is_permit =
                charge.is_some_and(|charge| charge.rule.algorithm == Algorithm::Permits);
            // A permit may be free at any moment; a demand above the whole limit never fits.
            let wait = refusal.wait_ms.unwrap_or(if is_permit { 0 } else { u64::MAX });
            (0, wait)
        }
    };
    match one {
        Some(one) if weight(&one) >= weight(&other) => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests;
