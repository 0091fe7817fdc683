//! What the ledger sends, when, and in which batch: a pure state machine.
//!
//! # Rules
//! - A release is sent within `RELEASE_MS`, anything else within `SETTLE_MS`; whatever waits for the
//!   same tag goes along.
//! - Of a tag one batch is under way at a time. It keeps its number and its content until it is
//!   acknowledged, and is sent again with growing pauses. Numbers count up over all tags of the node,
//!   so that nothing has to be remembered of a tag that is done.
//! - While the leases of a tag are being renewed, no batch of it is sent: a release must not be
//!   overtaken by a renewal that was decided before it.
//!
//! # Bounds
//! Usage is added up by row, and what was admitted elsewhere by limit, so both grow with the number
//! of different names and not with requests; beyond `MAX_ROWS` usage goes to the row `other` of its
//! tag and hour. The other settles are those of attempts that the store admitted: once it does not
//! answer there are no more than were in flight. Should there be `MAX_SETTLES` all the same, one
//! more is dropped and counted (`dropped`): its lease ends and it is settled as reserved.

mod page;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Entry, Haste};
use crate::domain::AttemptId;
use crate::policy::limit::Batch;
use page::Page;

/// Releases of a tag are collected for so long.
const RELEASE_MS: u64 = 5;
/// Everything else is.
const SETTLE_MS: u64 = 100;
/// Settles that wait, of all tags.
const MAX_SETTLES: usize = 100_000;
/// Rows of usage that wait, of all tags.
const MAX_ROWS: usize = 50_000;
/// The pause before a batch is sent again, the first time and at most.
const RESEND_MS: (u64, u64) = (20, 1_000);

type Map<K, V> = HashMap<K, V, RandomState>;

/// All that waits, and all that is under way.
#[derive(Debug)]
pub(super) struct Book {
    incarnation: u64,
    given_up_ms: u64,
    pages: Map<Arc<str>, Page>,
    /// When each page is to be looked at; pages that wait for an answer are not in it.
    agenda: BTreeSet<(u64, Arc<str>)>,
    /// Tags whose leases are being renewed, in so many commands.
    renewing: Map<Arc<str>, usize>,
    number: u64,
    ticket: u64,
    settles: usize,
    rows: usize,
    dropped: u64,
}

impl Book {
    pub(super) fn new(incarnation: u64, given_up_ms: u64) -> Self {
        Self {
            incarnation,
            given_up_ms,
            pages: Map::default(),
            agenda: BTreeSet::new(),
            renewing: Map::default(),
            number: 0,
            ticket: 0,
            settles: 0,
            rows: 0,
            dropped: 0,
        }
    }

    /// Takes an entry over. Answers whether something is due earlier than before.
    pub(super) fn post(&mut self, entry: Entry, haste: Haste, now: u64) -> bool {
        let before = self.next_due();
        self.ticket += 1;
        let ticket = self.ticket;
        let page = self.pages.entry(Arc::clone(&entry.tag)).or_default();
        if let Some((hour, row, counts)) = entry.usage {
            self.rows += page.add_usage(hour, row, counts, ticket, self.rows < MAX_ROWS);
        }
        if let Some(settle) = entry.settle {
            let room = self.settles < MAX_SETTLES;
            let (added, dropped) = page.add(settle, haste, ticket, now + self.given_up_ms, room);
            self.settles += added;
            self.dropped += dropped;
        }
        let wait = match haste {
            Haste::Release => RELEASE_MS,
            Haste::Settle | Haste::GivenUp => SETTLE_MS,
        };
        if page.has_due() {
            page.due = Some(page.due.unwrap_or(u64::MAX).min(now + wait));
        }
        self.schedule(&entry.tag);
        match (before, self.next_due()) {
            (Some(before), Some(due)) => due < before,
            (None, due) => due.is_some(),
            (Some(_), None) => false,
        }
    }

    /// When something is to be done, if anything is.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// The batches that are to be sent now, at most so many. `held` says of which ids leases are
    /// held: what is taken back of an admission leaves them their permits.
    pub(super) fn take(
        &mut self,
        now: u64,
        most: usize,
        held: impl Fn(AttemptId) -> bool,
    ) -> Vec<Arc<Batch>> {
        let mut batches = Vec::new();
        while batches.len() < most {
            let Some((due, tag)) = self.agenda.first() else { break };
            if *due > now {
                break;
            }
            let tag = Arc::clone(tag);
            let Some(page) = self.pages.get_mut(&tag) else {
                self.agenda.pop_first();
                continue;
            };
            if let Some(flight) = &mut page.flight {
                flight.resend_at = None;
                batches.push(Arc::clone(&flight.batch));
            } else if let Some(flight) =
                page.next_flight(&tag, (self.incarnation, self.number + 1), now, &held)
            {
                self.number += 1;
                batches.push(Arc::clone(&flight.batch));
                page.flight = Some(flight);
            }
            self.schedule(&tag);
        }
        batches
    }

    /// The batch under way to this tag is in force.
    pub(super) fn acknowledged(&mut self, tag: &Arc<str>, now: u64) {
        let Some(page) = self.pages.get_mut(tag) else { return };
        if let Some(flight) = page.flight.take() {
            self.settles = self.settles.saturating_sub(flight.batch.settles.len());
            self.rows = self.rows.saturating_sub(flight.batch.usage.len());
        }
        if page.has_due() {
            // What did not fit into the last batch has waited long enough.
            page.due.get_or_insert(now);
        }
        self.schedule(tag);
    }

    /// Nobody knows whether the batch under way to this tag is in force: it is sent again.
    pub(super) fn failed(&mut self, tag: &Arc<str>, now: u64, random: u64) {
        let Some(flight) = self.pages.get_mut(tag).and_then(|page| page.flight.as_mut()) else {
            return;
        };
        let (first, most) = RESEND_MS;
        let pause = first.checked_shl(flight.failures).unwrap_or(most).min(most);
        flight.failures = (flight.failures + 1).min(16);
        // Between half of it and all of it, so that many nodes do not come back at once.
        flight.resend_at = Some(now + pause / 2 + random % (pause / 2 + 1));
        self.schedule(tag);
    }

    /// No batch of this tag is sent until `let_go`.
    pub(super) fn hold(&mut self, tag: &Arc<str>) {
        *self.renewing.entry(Arc::clone(tag)).or_default() += 1;
        self.schedule(tag);
    }

    /// Ends one `hold`.
    pub(super) fn let_go(&mut self, tag: &Arc<str>) {
        if let Some(commands) = self.renewing.get_mut(tag) {
            *commands -= 1;
            if *commands == 0 {
                self.renewing.remove(tag);
            }
        }
        self.schedule(tag);
    }

    /// What waits for this tag is due now.
    pub(super) fn hurry(&mut self, tag: &Arc<str>, now: u64) {
        if let Some(page) = self.pages.get_mut(tag) {
            if page.has_due() {
                page.due = Some(now);
            }
            if let Some(resend_at) =
                page.flight.as_mut().and_then(|flight| flight.resend_at.as_mut())
            {
                *resend_at = now.min(*resend_at);
            }
        }
        self.schedule(tag);
    }

    /// The same for all tags.
    pub(super) fn hurry_all(&mut self, now: u64) {
        let tags: Vec<_> = self.pages.keys().map(Arc::clone).collect();
        tags.iter().for_each(|tag| self.hurry(tag, now));
    }

    /// The last entry that was posted.
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether all entries for this tag up to that one are in force, but those that were given up.
    pub(super) fn is_done(&self, tag: &Arc<str>, ticket: u64) -> bool {
        self.pages.get(tag).is_none_or(|page| page.oldest_ticket().is_none_or(|old| old > ticket))
    }

    /// Entries that are not yet in force: settles and rows of usage.
    pub(super) fn waiting(&self) -> usize {
        self.settles + self.rows
    }

    /// Settles that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Puts the page under the right time into the agenda; forgets it when nothing is left of it.
    fn schedule(&mut self, tag: &Arc<str>) {
        let Some(page) = self.pages.get_mut(tag) else { return };
        let held = self.renewing.contains_key(tag);
        let due = page.next_due().filter(|_| !held);
        if due != page.scheduled {
            if let Some(old) = page.scheduled {
                self.agenda.remove(&(old, Arc::clone(tag)));
            }
            if let Some(due) = due {
                self.agenda.insert((due, Arc::clone(tag)));
            }
            page.scheduled = due;
        }
        if page.is_empty() {
            self.pages.remove(tag);
        }
    }
}

#[cfg(test)]
mod tests;
