//! The state of one tag.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::usage::Usage;
use crate::domain::AttemptId;
use crate::policy::limit::permits::{PermitHolder, Permits};
use crate::policy::limit::state::State;
use crate::policy::limit::{Bill, Charge, Holder, Lapsed, LimitId, Rule};

/// Days in milliseconds: what was recorded of a lost member is kept until the next one is over.
const DAY_MS: u64 = 86_400_000;
/// How long the number of an incarnation's last batch is kept.
const BATCH_MS: u64 = 7 * DAY_MS;

type Map<K, V> = HashMap<K, V, RandomState>;

/// All that is decided together.
#[derive(Debug, Default)]
pub(super) struct Tag {
    pub(super) scopes: Map<Arc<str>, Scope>,
    pub(super) permits: Map<(LimitId, Arc<str>), Permits>,
    /// Members: attempts that are not yet settled.
    pub(super) open: Map<AttemptId, Member>,
    /// Ids that may still be sent again.
    pub(super) seen: Seen,
    /// Members that were settled because their node was lost, with their day and the hour that
    /// their estimate was recorded in.
    pub(super) lost: Map<AttemptId, (u64, u64, Member)>,
    pub(super) usage: Usage,
    /// The last batch of each incarnation, and until when that is kept.
    batches: Map<u64, (u64, u64)>,
}

/// The counters of one owner.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Few, so looked through.
    states: Vec<(LimitId, State)>,
    /// Whether it has its entry in the queue of what expires.
    pub(super) queued: bool,
}

/// What an attempt has reserved.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) lease_end: u64,
    /// Of its admit.
    pub(super) deadline: u64,
    /// How often it was topped up.
    pub(super) steps: u8,
    pub(super) scopes: Vec<Arc<str>>,
    /// With all that is reserved, and the slot that it is counted in.
    pub(super) charges: Vec<(Charge, u64)>,
    pub(super) bill: Option<Bill>,
}

/// Ids, each known until its admit's deadline.
#[derive(Debug, Default)]
pub(super) struct Seen {
    deadlines: Map<AttemptId, u64>,
    order: BTreeSet<(u64, AttemptId)>,
}

impl Tag {
    /// Whether the admit of this id was executed before.
    pub(super) fn knows(&self, id: &AttemptId) -> bool {
        self.open.contains_key(id) || self.seen.deadlines.contains_key(id)
    }

    /// Whether this batch is above the last one; from now on it is the last one.
    pub(super) fn is_fresh(&mut self, incarnation: u64, number: u64, now: u64) -> bool {
        let last = self.batches.get(&incarnation).map_or(0, |(number, _)| *number);
        if number <= last {
            return false;
        }
        self.batches.insert(incarnation, (number, now.saturating_add(BATCH_MS)));
        true
    }

    pub(super) fn lapsed(&self, limit: usize, now: u64) -> Vec<Lapsed> {
        let over = self.open.iter().filter(|(_, member)| member.lease_end <= now);
        let mut over: Vec<_> = over.map(|(id, member)| (member.lease_end, *id, member)).collect();
        over.sort_unstable_by_key(|(end, id, _)| (*end, *id));
        over.truncate(limit);
        let lapsed = |(_, id, member): (u64, AttemptId, &Member)| Lapsed {
            id,
            scopes: member.scopes.clone(),
            charges: member.charges.iter().map(|(charge, _)| *charge).collect(),
            bill: member.bill.clone(),
        };
        over.into_iter().map(lapsed).collect()
    }

    pub(super) fn used(&self, scope: &Arc<str>, rule: &Rule, now: u64) -> u64 {
        if let Some(permits) = self.permits.get(&(rule.id, Arc::clone(scope))) {
            return permits.alive(now);
        }
        let state = self.scopes.get(scope).and_then(|scope| scope.state(&rule.id));
        let state = state.and_then(|state| state.clone().brought_to(rule, now));
        state.map_or(0, |state| state.used(now))
    }

    /// Forgets ids whose admit's deadline is over.
    pub(super) fn trim(&mut self, now: u64) {
        self.seen.trim(now);
    }

    /// Clears away all whose time is over, but the counters, which have their own.
    pub(super) fn tidy(&mut self, now: u64) {
        self.seen.trim(now);
        let day = now / DAY_MS;
        self.lost.retain(|_, (of, _, _)| *of + 1 >= day);
        self.usage.tidy(now);
        self.batches.retain(|_, (_, until)| *until > now);
        self.permits.retain(|_, permits| {
            permits.clear(now);
            !permits.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scopes.is_empty()
            && self.permits.is_empty()
            && self.open.is_empty()
            && self.seen.deadlines.is_empty()
            && self.lost.is_empty()
            && self.usage.is_empty()
            && self.batches.is_empty()
    }

    /// Keeps what was recorded of a lost member, for a truth that comes late.
    pub(super) fn keep_lost(&mut self, id: AttemptId, hour: u64, member: Member, now: u64) {
        self.lost.insert(id, (now / DAY_MS, hour, member));
    }

    /// What was recorded of a lost member today or yesterday, once.
    pub(super) fn take_lost(&mut self, id: &AttemptId, now: u64) -> Option<(u64, Member)> {
        let (day, hour, member) = self.lost.remove(id)?;
        (day + 1 >= now / DAY_MS).then_some((hour, member))
    }
}

impl Scope {
    pub(super) fn state(&self, id: &LimitId) -> Option<&State> {
        self.states.iter().find(|(of, _)| of == id).map(|(_, state)| state)
    }

    pub(super) fn state_mut(&mut self, id: &LimitId) -> Option<&mut State> {
        self.states.iter_mut().find(|(of, _)| of == id).map(|(_, state)| state)
    }

    pub(super) fn put(&mut self, id: LimitId, state: State) {
        match self.state_mut(&id) {
            Some(kept) => *kept = state,
            None => self.states.push((id, state)),
        }
    }

    /// From when on none of its counters counts anything.
    pub(super) fn empty_at(&self) -> u64 {
        self.states.iter().map(|(_, state)| state.empty_at()).max().unwrap_or(0)
    }
}

impl Seen {
    /// Notes an id, unless it is known.
    pub(super) fn insert(&mut self, id: AttemptId, deadline: u64) -> bool {
        let fresh = !self.deadlines.contains_key(&id);
        if fresh {
            self.deadlines.insert(id, deadline);
            self.order.insert((deadline, id));
        }
        fresh
    }

    fn trim(&mut self, now: u64) {
        while let Some((deadline, id)) = self.order.first().copied() {
            if deadline >= now {
                break;
            }
            self.order.pop_first();
            self.deadlines.remove(&id);
        }
    }
}

/// Who holds the permit that this charge asks for.
pub(super) fn permit_holder(id: &AttemptId, charge: &Charge) -> PermitHolder {
    match charge.holder {
        Holder::Request => PermitHolder::request(id.to_bytes()),
        Holder::Attempt => PermitHolder::attempt(id.to_bytes()),
    }
}
