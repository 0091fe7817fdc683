//! The end: what the counters say, and what was recorded, when everything has come to rest.
//!
//! Both lie between what is sure and what may be. Where every request of a row had its whole answer
//! and the time to be settled, the two are the same, and the row must be exact.

use std::collections::BTreeMap;

use super::check::Violation;
use super::facts::{Charge, Facts};
use super::history::{Algorithm, Ask, Ending, Limit, Micros, Recorded, Usage};
use super::permits::Holds;

/// Whether a limit stands as it must at the end.
pub(crate) fn standing(facts: &Facts<'_>, limit: &Limit, charges: &[Charge]) -> Option<Violation> {
    let ending = facts.history.ending.as_ref()?;
    let used = *ending.standings.get(&limit.name)?;
    let (least, most) = match limit.algorithm {
        Algorithm::Permits => permits(facts, limit, ending),
        Algorithm::Budget => taken(facts, charges, ending, Micros::MAX, Micros::MAX),
        Algorithm::Window { length, slots } => {
            let longest = length + length / slots + length / 1000;
            taken(facts, charges, ending, length - length / 1000, longest)
        }
        Algorithm::Bucket { .. } => {
            let most = charges.iter().map(|charge| charge.maybe_at(ending.from)).sum();
            (0, most)
        }
    };
    if (least..=most).contains(&used) {
        return None;
    }
    let what = format!("stands at {used} in the end, where it must be {least} to {most}");
    let asks = charges.iter().map(|charge| charge.ask).collect();
    Some(Violation::new(&limit.name, what, ending.from, ending.until, asks))
}

/// What may be held at the end: nothing, once every lease is over.
fn permits(facts: &Facts<'_>, limit: &Limit, ending: &Ending) -> (u64, u64) {
    let holds = Holds::of(facts, limit);
    let most = if ending.from >= holds.end() { 0 } else { holds.most(ending.from, ending.until) };
    (0, most)
}

/// What of these charges counts at the end: surely within a window of `short`, at most within one
/// of `long`.
fn taken(
    facts: &Facts<'_>,
    charges: &[Charge],
    ending: &Ending,
    short: Micros,
    long: Micros,
) -> (u64, u64) {
    let (mut least, mut most) = (0, 0);
    for charge in charges {
        let kept = facts.era(charge.lo, ending.until).is_some();
        if kept && charge.lo >= ending.until.saturating_sub(short) {
            least += match charge.settled {
                Some((since, amount)) if since <= ending.from => amount,
                _ => charge.surely.min(charge.maybe),
            };
        }
        if charge.late >= ending.from.saturating_sub(long) {
            most += charge.maybe_at(ending.from);
        }
    }
    (least, most)
}

/// Of how many requests that were not refused the usage is surely known, and how many there are.
pub(crate) fn certain(facts: &Facts<'_>) -> (usize, usize) {
    let Some(ending) = &facts.history.ending else { return (0, 0) };
    let asks = facts.history.asks.iter().filter(|ask| !facts.is_refused(ask));
    let sure = asks.clone().filter(|ask| is_sure(facts, ask, ending));
    (sure.count(), asks.count())
}

/// Whether the usage of a request is exactly what the wall told, and still recorded.
fn is_sure(facts: &Facts<'_>, ask: &Ask, ending: &Ending) -> bool {
    let settled = facts.settled(ask).is_some_and(|by| by <= ending.from);
    settled && facts.era(ask.sent, ending.until).is_some()
}

/// What a row holds at least, and at most.
#[derive(Default)]
struct Row {
    least: Recorded,
    most: Recorded,
    asks: Vec<usize>,
}

/// Whether what was recorded is what the wall emitted.
pub(crate) fn rows(facts: &Facts<'_>) -> Vec<Violation> {
    let Some(ending) = &facts.history.ending else { return Vec::new() };
    let Some(recorded) = &ending.rows else { return Vec::new() };
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (index, ask) in facts.history.asks.iter().enumerate() {
        if facts.is_refused(ask) {
            continue;
        }
        let row = rows.entry(&ask.row).or_default();
        row.asks.push(index);
        let attempts = facts.attempts(ask);
        let told = attempts.iter().fold(Usage::default(), |sum, it| sum.plus(it.told));
        let count = attempts.len() as u64;
        if is_sure(facts, ask, ending) {
            let sure = Recorded { requests: 1, attempts: count, usage: told, node_lost: 0 };
            row.least.add(&sure);
            row.most.add(&sure);
        } else {
            // Its attempts as they were or as they were reserved, and one that nobody saw.
            let attempts = attempts.iter().map(|it| it.told.or_more(ask.most));
            let usage = attempts.fold(ask.most, Usage::plus);
            let lost = facts.killed(ask.node, ask.sent, ending.from).is_some()
                || facts.trouble(ask.node, ask.sent, ending.from).is_some();
            let node_lost = if lost { count + 1 } else { 0 };
            row.most.add(&Recorded { requests: 1, attempts: count + 1, usage, node_lost });
        }
    }
    let nothing = Recorded::default();
    let mut wrong = Vec::new();
    let names = recorded.keys().map(String::as_str).chain(rows.keys().copied());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let found = recorded.get(name).unwrap_or(&nothing);
        let row = rows.remove(name).unwrap_or_default();
        if row.least.fits(found) && found.fits(&row.most) {
            continue;
        }
        let what = format!(
            "the row {name} holds {found:?}, where it must hold at least {:?} and at most {:?}",
            row.least, row.most
        );
        wrong.push(Violation::new("usage", what, ending.from, ending.until, row.asks));
    }
    wrong
}

impl Recorded {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.usage = self.usage.plus(other.usage);
        self.node_lost += other.node_lost;
    }

    /// Whether nothing of it is more than in the other.
    fn fits(&self, other: &Self) -> bool {
        let (mine, its) = (self.usage, other.usage);
        self.requests <= other.requests
            && self.attempts <= other.attempts
            && mine.input <= its.input
            && mine.output <= its.output
            && mine.cost <= its.cost
            && self.node_lost <= other.node_lost
    }
}
