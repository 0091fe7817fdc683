//! Permits: how many requests surely, and at most, held one at the same time.
//!
//! A request surely holds its permit from when the wall saw its first attempt until the last byte
//! of its last one left, or its client, its node or the permit's lease may have gone. It may hold it
//! from when it was sent until its end is surely known everywhere.

use super::check::{Violation, share_of};
use super::facts::Facts;
use super::history::{Algorithm, Ask, End, Limit, Micros, What};

/// The most that surely held a permit at the same time, and whether that breaks the limit.
pub(crate) fn judge(facts: &Facts<'_>, limit: &Limit) -> (f64, Option<Violation>) {
    let mut changes: Vec<(Micros, i64, usize)> = Vec::new();
    for (index, ask) in facts.history.asks.iter().enumerate() {
        if limit.covers(ask)
            && let Some((from, until)) = surely(facts, ask)
        {
            changes.push((from, 1, index));
            changes.push((until, -1, index));
        }
    }
    // Who leaves at the moment at which another comes has left before.
    changes.sort_unstable();
    let (mut held, mut most, mut at) = (0_i64, 0_i64, 0);
    for (when, change, _) in &changes {
        held += change;
        if held > most {
            (most, at) = (held, *when);
        }
    }
    let allowed = limit.limit + limit.bound;
    let most = u64::try_from(most).unwrap_or(0);
    let violation = (most > allowed).then(|| {
        let holds = |ask: &Ask| surely(facts, ask).is_some_and(|(a, b)| a <= at && at < b);
        let asks = facts.history.asks.iter().enumerate();
        let asks = asks.filter(|(_, ask)| limit.covers(ask) && holds(ask));
        let asks = asks.map(|(index, _)| index).collect();
        let what = format!("{most} surely held a permit where {allowed} were allowed");
        Violation::new(&limit.name, what, at, at, asks)
    });
    (share_of(most, allowed), violation)
}

/// When a request surely holds a permit.
fn surely(facts: &Facts<'_>, ask: &Ask) -> Option<(Micros, Micros)> {
    let attempts = facts.attempts(ask);
    let (first, last) = (attempts.first()?, attempts.last()?);
    let mut until = last.until;
    if ask.end != End::Broken {
        until = until.min(ask.over);
    }
    let lease = facts.history.patience.lease;
    for fault in &facts.history.faults {
        // A lease is renewed when a third of it has passed: shorter trouble ends none.
        let long = fault.until.saturating_sub(fault.from) >= lease / 3;
        let ends = match fault.what {
            What::NodeKilled(node) => node == ask.node,
            What::NodeStopped(node) | What::NodeCutOff(node) => node == ask.node && long,
            What::StoreAway => long,
            What::StoreEmptied => true,
            What::Harmless => false,
        };
        if ends && fault.until >= ask.sent && fault.from <= until {
            until = until.min(fault.from);
        }
    }
    (first.at < until).then_some((first.at, until))
}

/// When a request may hold a permit.
fn maybe(facts: &Facts<'_>, ask: &Ask) -> (Micros, Micros) {
    let patience = facts.history.patience;
    let mut until = ask.over + patience.release;
    // The wall may see the end of what a client left later than the client does.
    if let Some(last) = facts.attempts(ask).last() {
        until = until.max(last.until + patience.release);
    }
    if let Some(killed) = facts.killed(ask.node, ask.sent, until) {
        until = until.max(killed.from + patience.lease + patience.release);
    }
    if let Some(trouble) = facts.trouble(ask.node, ask.sent, until) {
        let felt = trouble.until.saturating_add(patience.recovery + patience.release);
        until = until.max(felt.saturating_add(patience.lease));
    }
    (ask.sent, until)
}

/// The times at which requests may hold permits of a limit, and how many do at most.
pub(crate) struct Holds {
    /// Each time at which the number changes, and the number from there on.
    steps: Vec<(Micros, i64)>,
}

impl Holds {
    pub(crate) fn of(facts: &Facts<'_>, limit: &Limit) -> Self {
        let mut changes = Vec::new();
        if limit.algorithm == Algorithm::Permits {
            let asks = facts.history.asks.iter();
            for ask in asks.filter(|ask| limit.covers(ask) && !facts.is_refused(ask)) {
                let (from, until) = maybe(facts, ask);
                changes.push((from, 1));
                changes.push((until.saturating_add(1), -1));
            }
        }
        changes.sort_unstable();
        let mut held = 0;
        let steps = changes.into_iter().map(|(at, change)| {
            held += change;
            (at, held)
        });
        Self { steps: steps.collect() }
    }

    /// The most within this time.
    pub(crate) fn most(&self, from: Micros, until: Micros) -> u64 {
        let before = self.steps.partition_point(|(at, _)| *at <= from);
        let held = before.checked_sub(1).map_or(0, |at| self.steps[at].1);
        let within = self.steps[before..].iter().take_while(|(at, _)| *at <= until);
        let most = within.map(|(_, held)| *held).max().unwrap_or(0).max(held);
        u64::try_from(most).unwrap_or(0)
    }

    /// When the last one is surely gone.
    pub(crate) fn end(&self) -> Micros {
        self.steps.last().map_or(0, |(at, _)| *at)
    }
}
