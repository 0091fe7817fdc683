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

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Entry, Haste};
use crate::domain::AttemptId;
use crate::policy::limit::{
    Algorithm, Batch, Charge, Counts, Holder, LimitId, Origin, Row, Settle,
};

/// Releases of a tag are collected for so long.
const RELEASE_MS: u64 = 5;
/// Everything else is.
const SETTLE_MS: u64 = 100;
/// Settles in one batch: about a millisecond of the store's time.
const BATCH_SETTLES: usize = 256;
/// Rows of usage in one batch.
const BATCH_ROWS: usize = 256;
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

/// What there is for one tag.
#[derive(Debug, Default)]
struct Page {
    settles: VecDeque<(u64, Settle)>,
    /// What was admitted elsewhere, added up.
    elsewhere: Map<Place, (u64, Settle)>,
    usage: Map<(u64, Row), (u64, Counts)>,
    /// Settles of admissions that were given up, with the time from which they may be sent.
    given_up: VecDeque<(u64, Settle)>,
    /// When the rest is due.
    due: Option<u64>,
    flight: Option<Flight>,
    /// Under which time it stands in the agenda.
    scheduled: Option<u64>,
}

/// Which limits of whom: what may be added up in one settle. A budget's period is part of it.
type Place = (Vec<Arc<str>>, Vec<(u8, LimitId, u64)>);

/// A batch that is not yet acknowledged.
#[derive(Debug)]
struct Flight {
    batch: Arc<Batch>,
    /// All tickets up to this one are in it, or were in one before.
    tickets: HashSet<u64, RandomState>,
    /// When it is to be sent again; none while an answer is awaited.
    resend_at: Option<u64>,
    failures: u32,
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
            let fresh = !page.usage.contains_key(&(hour, row.clone()));
            let row = if fresh && self.rows >= MAX_ROWS { Row::other() } else { row };
            match page.usage.entry((hour, row)) {
                Slot::Occupied(mut kept) => kept.get_mut().1.add(&counts),
                Slot::Vacant(free) => {
                    free.insert((ticket, counts));
                    self.rows += 1;
                }
            }
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
    /// held: what is taken back of an admission that was given up leaves them their permits.
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

impl Page {
    /// Adds a settle. Answers how many more wait now, and how many were dropped.
    fn add(
        &mut self,
        settle: Settle,
        haste: Haste,
        ticket: u64,
        given_up_at: u64,
        room: bool,
    ) -> (usize, u64) {
        if settle.origin == Origin::Elsewhere {
            return self.add_elsewhere(settle, ticket, room);
        }
        if !room {
            return (0, 1);
        }
        if haste == Haste::GivenUp {
            self.given_up.push_back((given_up_at, settle));
        } else {
            self.settles.push_back((ticket, settle));
        }
        (1, 0)
    }

    /// Adds up what was admitted elsewhere; its permits are released one by one, since a renewal
    /// may have registered them.
    fn add_elsewhere(&mut self, settle: Settle, ticket: u64, room: bool) -> (usize, u64) {
        let (mut added, mut dropped) = (0, 0);
        let is_permit = |charge: &Charge| charge.rule.algorithm == Algorithm::Permits;
        let Settle { id, scopes, charges, origin } = settle;
        let (permits, amounts): (Vec<_>, Vec<_>) = charges.into_iter().partition(is_permit);
        if permits.iter().any(|charge| charge.amount == 0) {
            if room {
                let scopes = scopes.clone();
                let release = Settle { id, scopes, charges: permits, origin: Origin::Member };
                self.settles.push_back((ticket, release));
                added += 1;
            } else {
                dropped += 1;
            }
        }
        if amounts.iter().all(|charge| charge.amount == 0) {
            return (added, dropped);
        }
        let period = |charge: &Charge| match charge.rule.algorithm {
            Algorithm::Budget { start_ms, .. } => start_ms,
            _ => 0,
        };
        let limits = amounts.iter().map(|charge| (charge.scope, charge.rule.id, period(charge)));
        let place = (scopes, limits.collect::<Vec<_>>());
        match self.elsewhere.entry(place) {
            Slot::Occupied(mut kept) => {
                let (_, kept) = kept.get_mut();
                for (sum, more) in kept.charges.iter_mut().zip(&amounts) {
                    sum.rule = more.rule;
                    sum.amount = sum.amount.saturating_add(more.amount);
                }
            }
            Slot::Vacant(free) if room => {
                let scopes = free.key().0.clone();
                free.insert((ticket, Settle { id, scopes, charges: amounts, origin }));
                added += 1;
            }
            Slot::Vacant(_) => dropped += 1,
        }
        (added, dropped)
    }

    /// The next batch, if there is anything to put into it.
    fn next_flight(
        &mut self,
        tag: &Arc<str>,
        (incarnation, number): (u64, u64),
        now: u64,
        held: &impl Fn(AttemptId) -> bool,
    ) -> Option<Flight> {
        let mut tickets = HashSet::default();
        let mut settles = Vec::new();
        while settles.len() < BATCH_SETTLES
            && self.given_up.front().is_some_and(|(at, _)| *at <= now)
        {
            let Some((_, mut settle)) = self.given_up.pop_front() else { break };
            for charge in &mut settle.charges {
                let id = match charge.holder {
                    Holder::Request => AttemptId { attempt: 0, ..settle.id },
                    Holder::Attempt => settle.id,
                };
                if charge.rule.algorithm == Algorithm::Permits && held(id) {
                    charge.amount = 1;
                }
            }
            settles.push(settle);
        }
        let due = self.due.is_some_and(|due| due <= now) || !settles.is_empty();
        while due && settles.len() < BATCH_SETTLES {
            let Some((ticket, settle)) = self.settles.pop_front() else { break };
            tickets.insert(ticket);
            settles.push(settle);
        }
        let room = BATCH_SETTLES.saturating_sub(settles.len());
        let places: Vec<_> =
            self.elsewhere.keys().take(if due { room } else { 0 }).cloned().collect();
        for (ticket, settle) in places.iter().filter_map(|place| self.elsewhere.remove(place)) {
            tickets.insert(ticket);
            settles.push(settle);
        }
        let rows: Vec<_> =
            self.usage.keys().take(if due { BATCH_ROWS } else { 0 }).cloned().collect();
        let mut usage = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some((ticket, counts)) = self.usage.remove(&row) {
                tickets.insert(ticket);
                usage.push((row.0, row.1, counts));
            }
        }
        if due {
            // What did not fit follows when this is acknowledged.
            self.due = None;
        }
        if settles.is_empty() && usage.is_empty() {
            return None;
        }
        let tag = Arc::clone(tag);
        let batch = Arc::new(Batch { tag, incarnation, number, settles, usage });
        Some(Flight { batch, tickets, resend_at: None, failures: 0 })
    }

    /// Whether something waits that is due at a time of its own.
    fn has_due(&self) -> bool {
        !self.settles.is_empty() || !self.elsewhere.is_empty() || !self.usage.is_empty()
    }

    fn next_due(&self) -> Option<u64> {
        if let Some(flight) = &self.flight {
            return flight.resend_at;
        }
        let given_up = self.given_up.front().map(|(at, _)| *at);
        [self.due, given_up].into_iter().flatten().min()
    }

    fn oldest_ticket(&self) -> Option<u64> {
        let flying = self.flight.iter().flat_map(|flight| flight.tickets.iter().copied());
        let settles = self.settles.front().map(|(ticket, _)| *ticket);
        let elsewhere = self.elsewhere.values().map(|(ticket, _)| *ticket);
        let usage = self.usage.values().map(|(ticket, _)| *ticket);
        flying.chain(settles).chain(elsewhere).chain(usage).min()
    }

    fn is_empty(&self) -> bool {
        self.flight.is_none() && self.given_up.is_empty() && !self.has_due()
    }
}

#[cfg(test)]
mod tests;
