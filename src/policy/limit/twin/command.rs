//! What each command does to the state of one tag: read all, decide all, write all or nothing.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::tag::{Member, Tag, permit_holder};
use crate::policy::limit::state::State;
use crate::policy::limit::{
    Admit, Algorithm, Charge, Misfit, Origin, Refusal, Renew, Settle, TopUp, Verdict,
};

/// An hour in milliseconds: usage is kept by the hour.
const HOUR_MS: u64 = 3_600_000;

/// Why a command takes nothing.
enum Nothing {
    Refused(Refusal),
    StalePeriod,
}

/// What a command may take: of each charge what is left after it, and the states that had to be
/// brought to now.
#[derive(Default)]
struct Decision {
    left: Vec<u64>,
    states: SmallVec<[(usize, State); 4]>,
}

impl Tag {
    pub(super) fn admit(
        &mut self,
        admit: &Admit,
        deadline: u64,
        lease_end: u64,
        now: u64,
    ) -> Verdict {
        let decision = match self.decide(&admit.scopes, &admit.charges, now) {
            Ok(decision) => decision,
            // The answer to the first copy of this command was another one.
            Err(_) if self.knows(&admit.id) => return Verdict::Duplicate,
            Err(nothing) => return nothing.into(),
        };
        if self.knows(&admit.id) {
            return Verdict::Duplicate;
        }
        let mut slots = Vec::with_capacity(if admit.member { admit.charges.len() } else { 0 });
        let left = self.take(&admit.scopes, &admit.charges, decision, |slot| {
            if admit.member {
                slots.push(slot);
            }
        });
        for charge in admit.charges.iter().filter(|charge| is_permit(charge)) {
            let Some(scope) = owner(&admit.scopes, charge) else { continue };
            let permits = self.permits.entry((charge.rule.id, Arc::clone(scope))).or_default();
            permits.acquire(permit_holder(&admit.id, charge), charge.rule.limit, lease_end, now);
        }
        if admit.member {
            let member = Member {
                lease_end,
                deadline,
                steps: 0,
                scopes: admit.scopes.clone(),
                charges: admit.charges.iter().copied().zip(slots).collect(),
                bill: admit.bill.clone(),
            };
            self.open.insert(admit.id, member);
        } else {
            self.seen.insert(admit.id, deadline);
            self.trim(now);
        }
        Verdict::Admitted(left)
    }

    pub(super) fn top_up(&mut self, more: &TopUp, now: u64) -> Verdict {
        let none = Verdict::Refused(Refusal { charge: 0, wait_ms: None, left: 0 });
        let Some(member) = self.open.get(&more.id) else { return none };
        if more.step <= member.steps {
            return Verdict::Duplicate;
        }
        if more.step - member.steps > 1 || more.charges.len() != member.charges.len() {
            return none;
        }
        // Permits are held, not topped up; and of what is not asked for nothing is looked at.
        let asked: Vec<Charge> = more.charges.iter().filter(|one| is_more(one)).copied().collect();
        let decision = match self.decide(&more.scopes, &asked, now) {
            Ok(decision) => decision,
            Err(Nothing::Refused(refusal)) => {
                let mut places = more.charges.iter().enumerate().filter(|(_, one)| is_more(one));
                let charge = places.nth(refusal.charge).map_or(0, |(place, _)| place);
                return Verdict::Refused(Refusal { charge, ..refusal });
            }
            Err(nothing) => return nothing.into(),
        };
        let mut taken = self.take(&more.scopes, &asked, decision, |_| {}).into_iter();
        let mut all_left = Vec::with_capacity(more.charges.len());
        if let Some(member) = self.open.get_mut(&more.id) {
            member.steps = more.step;
            // All of it counts as charged in the first slot. Once that has left the window, nothing
            // is given back: a newer slot holds what others took.
            for (one, (held, _)) in more.charges.iter().zip(&mut member.charges) {
                let Some(left) = is_more(one).then(|| taken.next()).flatten() else {
                    all_left.push(0);
                    continue;
                };
                held.amount = held.amount.saturating_add(one.amount);
                all_left.push(left);
            }
        }
        Verdict::Admitted(all_left)
    }

    /// Applies the truth about an attempt. There is room for so many new rows of usage.
    pub(super) fn settle(&mut self, settle: &Settle, room: usize, now: u64) {
        let id = &settle.id;
        self.give_permits(settle, now);
        let lapsed = |member: &Member| member.lease_end <= now;
        match settle.origin {
            Origin::Elsewhere => {
                for charge in settle.charges.iter().filter(|one| is_more(one)) {
                    self.charge_unchecked(&settle.scopes, charge, now);
                }
            }
            Origin::Member => {
                if let Some(member) = self.open.remove(id) {
                    self.correct(settle, &member, now);
                    if member.deadline >= now {
                        self.seen.insert(*id, member.deadline);
                    }
                } else if let Some((hour, member)) = self.take_lost(id, now) {
                    self.correct(settle, &member, now);
                    if let Some(bill) = &member.bill {
                        let estimate = bill.estimate.of_lost_node();
                        self.usage.take_back(hour, &bill.row, &estimate, room);
                    }
                }
            }
            Origin::Lapsed if self.open.get(id).is_some_and(lapsed) => {
                let Some(member) = self.open.remove(id) else { return };
                let hour = now / HOUR_MS;
                if let Some(bill) = &member.bill {
                    self.usage.add(hour, &bill.row, &bill.estimate.of_lost_node(), room);
                }
                self.keep_lost(*id, hour, member, now);
            }
            Origin::Lapsed => {}
        }
    }

    pub(super) fn renew(&mut self, lease: &Renew, lease_end: u64) {
        for charge in lease.charges.iter().filter(|charge| is_permit(charge)) {
            let Some(scope) = owner(&lease.scopes, charge) else { continue };
            let permits = self.permits.entry((charge.rule.id, Arc::clone(scope))).or_default();
            permits.renew(permit_holder(&lease.id, charge), lease_end);
        }
        if lease.member
            && let Some(member) = self.open.get_mut(&lease.id)
        {
            member.lease_end = lease_end;
        }
    }

    fn decide(
        &self,
        scopes: &[Arc<str>],
        charges: &[Charge],
        now: u64,
    ) -> Result<Decision, Nothing> {
        let mut decision =
            Decision { left: Vec::with_capacity(charges.len()), ..Decision::default() };
        for (place, charge) in charges.iter().enumerate() {
            let refused = |misfit: Misfit| {
                let Misfit { wait_ms, left } = misfit;
                Nothing::Refused(Refusal { charge: place, wait_ms, left })
            };
            let never = || refused(Misfit { wait_ms: None, left: 0 });
            let scope = owner(scopes, charge).ok_or_else(never)?;
            let rule = &charge.rule;
            if let Algorithm::Budget { start_ms, end_ms } = rule.algorithm
                && !(start_ms..end_ms).contains(&now)
            {
                return Err(Nothing::StalePeriod);
            }
            // A limit that is asked twice in one command gives both times together.
            let before = charges.iter().take(place);
            let before = before.filter(|one| one.scope == charge.scope && one.rule.id == rule.id);
            let amount = before.fold(charge.amount, |sum, one| sum.saturating_add(one.amount));
            if is_permit(charge) {
                let permits = self.permits.get(&(rule.id, Arc::clone(scope)));
                let free = || Misfit::room(rule.limit, 0, amount);
                let none = Misfit { wait_ms: None, left: rule.limit };
                let left = match permits {
                    Some(permits) => permits.fits(rule.limit, amount, now),
                    None => free().ok_or(none),
                };
                decision.left.push(left.map_err(refused)?);
                continue;
            }
            let state = self.scopes.get(scope).and_then(|scope| scope.state(&rule.id));
            let state = match state {
                Some(state) if state.is_at(rule, now) => Some(Cow::Borrowed(state)),
                Some(state) => state.clone().brought_to(rule, now).map(Cow::Owned),
                None => State::new(rule, 0, now).map(Cow::Owned),
            };
            let state = state.ok_or_else(never)?;
            decision.left.push(state.fits(rule, amount, now).map_err(refused)?);
            if let Cow::Owned(state) = state {
                decision.states.push((place, state));
            }
        }
        Ok(decision)
    }

    /// Takes what was decided. Tells of each charge the slot that it counts in.
    fn take(
        &mut self,
        scopes: &[Arc<str>],
        charges: &[Charge],
        decision: Decision,
        mut counted_in: impl FnMut(u64),
    ) -> Vec<u64> {
        // Of a limit that is asked twice there are two equal copies, and both stand before either
        // is charged.
        for (place, state) in decision.states {
            let Some(charge) = charges.get(place) else { continue };
            let Some(scope) = owner(scopes, charge) else { continue };
            self.scopes.entry(Arc::clone(scope)).or_default().put(charge.rule.id, state);
        }
        for charge in charges {
            let scope = owner(scopes, charge).and_then(|scope| self.scopes.get_mut(scope));
            let state = scope.and_then(|scope| scope.state_mut(&charge.rule.id));
            counted_in(match state {
                Some(state) if !is_permit(charge) => state.charge(&charge.rule, charge.amount),
                _ => 0,
            });
        }
        decision.left
    }

    fn give_permits(&mut self, settle: &Settle, now: u64) {
        for charge in settle.charges.iter().filter(|charge| is_permit(charge)) {
            let Some(scope) = owner(&settle.scopes, charge) else { continue };
            let key = (charge.rule.id, Arc::clone(scope));
            let Some(permits) = self.permits.get_mut(&key) else { continue };
            let holder = permit_holder(&settle.id, charge);
            if settle.origin == Origin::Lapsed {
                permits.reclaim(&holder, now);
            } else if charge.amount == 0 {
                permits.release(&holder);
            }
            if permits.is_empty() {
                self.permits.remove(&key);
            }
        }
    }

    /// Corrects what a member reserved to what it used.
    fn correct(&mut self, settle: &Settle, member: &Member, now: u64) {
        for (truth, (held, slot)) in settle.charges.iter().zip(&member.charges) {
            let difference = difference(truth.amount, held.amount);
            if is_permit(truth) || difference == 0 {
                continue;
            }
            let Some(scope) = owner(&settle.scopes, truth) else { continue };
            let known = self.scopes.get(scope).is_some_and(|of| of.state(&truth.rule.id).is_some());
            if !known && difference < 0 {
                continue;
            }
            let scope = self.scopes.entry(Arc::clone(scope)).or_default();
            if !known && let Some(state) = State::new(&truth.rule, 0, now) {
                scope.put(truth.rule.id, state);
            }
            if let Some(state) = scope.state_mut(&truth.rule.id) {
                state.advance(truth.rule.limit, now);
                state.correct(&truth.rule, Some(*slot), difference);
            }
        }
    }

    /// Charges now what was admitted elsewhere. A budget that was asked for in a period which is
    /// over is charged in the period that is kept.
    fn charge_unchecked(&mut self, scopes: &[Arc<str>], charge: &Charge, now: u64) {
        let Some(scope) = owner(scopes, charge) else { return };
        let rule = &charge.rule;
        let scope = self.scopes.entry(Arc::clone(scope)).or_default();
        let stale = match rule.algorithm {
            Algorithm::Budget { start_ms, end_ms } => !(start_ms..end_ms).contains(&now),
            _ => false,
        };
        let state = match scope.state(&rule.id).cloned() {
            Some(state) if stale => Some(state),
            Some(state) => state.brought_to(rule, now),
            None => State::new(rule, 0, now),
        };
        if let Some(mut state) = state {
            state.correct(rule, Some(state.head()), difference(charge.amount, 0));
            scope.put(rule.id, state);
        }
    }
}

impl From<Nothing> for Verdict {
    fn from(nothing: Nothing) -> Self {
        match nothing {
            Nothing::Refused(refusal) => Self::Refused(refusal),
            Nothing::StalePeriod => Self::StalePeriod,
        }
    }
}

/// Whose counter a charge is about.
fn owner<'a>(scopes: &'a [Arc<str>], charge: &Charge) -> Option<&'a Arc<str>> {
    scopes.get(usize::from(charge.scope))
}

fn is_permit(charge: &Charge) -> bool {
    charge.rule.algorithm == Algorithm::Permits
}

/// Whether it asks for an amount.
fn is_more(charge: &Charge) -> bool {
    !is_permit(charge) && charge.amount > 0
}

fn difference(used: u64, reserved: u64) -> i64 {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    signed(used).saturating_sub(signed(reserved))
}
