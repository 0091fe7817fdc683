//! What there is for one tag: what waits, and the batch that is under way.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use super::{Haste, Map};
use crate::domain::AttemptId;
use crate::policy::limit::{
    Algorithm, Batch, Charge, Counts, Holder, LimitId, Origin, Row, Settle,
};

/// Settles in one batch: about a millisecond of the store's time.
pub(super) const BATCH_SETTLES: usize = 256;
/// Rows of usage in one batch.
const BATCH_ROWS: usize = 256;

/// What there is for one tag.
#[derive(Debug, Default)]
pub(super) struct Page {
    settles: VecDeque<(u64, Settle)>,
    /// What was admitted elsewhere, added up.
    elsewhere: Map<Place, (u64, Settle)>,
    usage: Map<(u64, Row), (u64, Counts)>,
    /// Settles of admissions that were given up, with the time from which they may be sent.
    given_up: VecDeque<(u64, Settle)>,
    /// When the rest is due.
    pub(super) due: Option<u64>,
    pub(super) flight: Option<Flight>,
    /// Under which time it stands in the agenda.
    pub(super) scheduled: Option<u64>,
}

/// Which limits of whom: what may be added up in one settle. A budget's period is part of it.
type Place = (Vec<Arc<str>>, Vec<(u8, LimitId, u64)>);

/// A batch that is not yet acknowledged.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) batch: Arc<Batch>,
    /// The oldest ticket in it.
    oldest: Option<u64>,
    /// When it is to be sent again; none while an answer is awaited.
    pub(super) resend_at: Option<u64>,
    pub(super) failures: u32,
}

impl Page {
    /// Adds usage to its row; to the row `other` where there is no room for a new one. Answers how
    /// many rows more wait now.
    pub(super) fn add_usage(
        &mut self,
        hour: u64,
        row: Row,
        counts: Counts,
        ticket: u64,
        room: bool,
    ) -> usize {
        let place = (hour, row);
        let known = room || self.usage.contains_key(&place);
        match self.usage.entry(if known { place } else { (hour, Row::other()) }) {
            Slot::Occupied(mut kept) => {
                kept.get_mut().1.add(&counts);
                0
            }
            Slot::Vacant(free) => {
                free.insert((ticket, counts));
                1
            }
        }
    }

    /// Adds a settle. Answers how many more wait now, and how many were dropped.
    pub(super) fn add(
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
    pub(super) fn next_flight(
        &mut self,
        tag: &Arc<str>,
        (incarnation, number): (u64, u64),
        now: u64,
        held: &impl Fn(AttemptId) -> bool,
    ) -> Option<Flight> {
        let mut oldest = None;
        let mut settles = Vec::new();
        while settles.len() < BATCH_SETTLES
            && self.given_up.front().is_some_and(|(at, _)| *at <= now)
        {
            let Some((_, mut settle)) = self.given_up.pop_front() else { break };
            leave_permits(&mut settle, held);
            settles.push(settle);
        }
        let due = self.due.is_some_and(|due| due <= now) || !settles.is_empty();
        while due && settles.len() < BATCH_SETTLES {
            let Some((ticket, mut settle)) = self.settles.pop_front() else { break };
            leave_permits(&mut settle, held);
            note(&mut oldest, ticket);
            settles.push(settle);
        }
        let room = BATCH_SETTLES.saturating_sub(settles.len());
        let places: Vec<_> =
            self.elsewhere.keys().take(if due { room } else { 0 }).cloned().collect();
        for (ticket, settle) in places.iter().filter_map(|place| self.elsewhere.remove(place)) {
            note(&mut oldest, ticket);
            settles.push(settle);
        }
        let rows: Vec<_> =
            self.usage.keys().take(if due { BATCH_ROWS } else { 0 }).cloned().collect();
        let mut usage = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some((ticket, counts)) = self.usage.remove(&row) {
                note(&mut oldest, ticket);
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
        Some(Flight { batch, oldest, resend_at: None, failures: 0 })
    }

    /// Whether something waits that is due at a time of its own.
    pub(super) fn has_due(&self) -> bool {
        !self.settles.is_empty() || !self.elsewhere.is_empty() || !self.usage.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        if let Some(flight) = &self.flight {
            return flight.resend_at;
        }
        let given_up = self.given_up.front().map(|(at, _)| *at);
        [self.due, given_up].into_iter().flatten().min()
    }

    pub(super) fn oldest_ticket(&self) -> Option<u64> {
        let flying = self.flight.iter().filter_map(|flight| flight.oldest);
        let settles = self.settles.front().map(|(ticket, _)| *ticket);
        let elsewhere = self.elsewhere.values().map(|(ticket, _)| *ticket);
        let usage = self.usage.values().map(|(ticket, _)| *ticket);
        flying.chain(settles).chain(elsewhere).chain(usage).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flight.is_none() && self.given_up.is_empty() && !self.has_due()
    }
}

/// What is taken back of one admission leaves a permit to whoever holds it: the request went on, and
/// has asked for it again.
fn leave_permits(settle: &mut Settle, held: &impl Fn(AttemptId) -> bool) {
    for charge in &mut settle.charges {
        let id = match charge.holder {
            Holder::Request => AttemptId { attempt: 0, ..settle.id },
            Holder::Attempt => settle.id,
        };
        if charge.rule.algorithm == Algorithm::Permits && held(id) {
            charge.amount = 1;
        }
    }
}

fn note(oldest: &mut Option<u64>, ticket: u64) {
    *oldest = Some(oldest.map_or(ticket, |oldest| oldest.min(ticket)));
}
