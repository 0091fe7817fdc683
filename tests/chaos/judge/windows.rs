//! Too much: more than a limit allows was surely taken in some window.
//!
//! What was surely taken within an interval that lies wholly in a window was taken in that window.
//! If such amounts are more than the limit, no order of events inside the intervals makes it good.
//! Every window that ends with an interval is looked at, so every window is.
//!
//! Where the store lost all data, the times before and after are judged apart: what it forgot it
//! cannot hold against anyone. A window is judged a thousandth shorter than it is, because its
//! length is measured on the store's clock, and the history is on another.

use std::ops::Range;

use super::check::{Violation, share_of};
use super::facts::{Charge, Facts};
use super::history::{Algorithm, Limit, Micros};

/// What a bucket gains, on the store's clock, by counting whole milliseconds.
const ROUNDING: Micros = 1_000;

/// The worst window of a limit: the most that was surely taken in one, and whether that breaks it.
pub(crate) fn judge(facts: &Facts<'_>, limit: &Limit, all: &[Charge]) -> (f64, Option<Violation>) {
    let mut eras: Vec<Vec<&Charge>> = Vec::new();
    for charge in all.iter().filter(|charge| charge.surely > 0) {
        if let Some(era) = facts.era(charge.lo, charge.hi) {
            eras.resize_with(eras.len().max(era + 1), Vec::new);
            eras[era].push(charge);
        }
    }
    let allowed = limit.limit + limit.bound;
    let mut worst: Option<(i128, Violation)> = None;
    let mut fullest = 0.0_f64;
    for era in &mut eras {
        era.sort_by_key(|charge| charge.hi);
        let found = match limit.algorithm {
            Algorithm::Window { length, .. } => window(era, length - length / 1000),
            Algorithm::Budget => window(era, Micros::MAX),
            Algorithm::Bucket { window, .. } => bucket(era, window, limit.limit + limit.bound),
            Algorithm::Permits => None,
        };
        let Some(Fullest { taken, from, until }) = found else { continue };
        let allowed = match limit.algorithm {
            Algorithm::Bucket { window, burst } => {
                let time = u128::from(until - from + ROUNDING);
                let flow = u128::from(allowed) * time / u128::from(window);
                burst + limit.bound + u64::try_from(flow).unwrap_or(u64::MAX)
            }
            _ => allowed,
        };
        fullest = fullest.max(share_of(taken, allowed));
        let excess = i128::from(taken) - i128::from(allowed);
        if excess > 0 && worst.as_ref().is_none_or(|(before, _)| excess > *before) {
            let asks = era.iter().filter(|it| from <= it.lo && it.hi <= until);
            let asks = asks.map(|charge| charge.ask).collect();
            let what = format!("{taken} were surely taken where {allowed} were allowed");
            worst = Some((excess, Violation::new(&limit.name, what, from, until, asks)));
        }
    }
    (fullest, worst.map(|(_, violation)| violation))
}

/// The window that is fullest, against what is allowed in it.
struct Fullest {
    taken: u64,
    from: Micros,
    until: Micros,
}

/// The most in any window of this length; `charges` in the order of `hi`.
fn window(charges: &[&Charge], length: Micros) -> Option<Fullest> {
    let mut starts: Vec<_> = charges.iter().map(|charge| charge.lo).collect();
    starts.sort_unstable();
    let mut sums = Sums::new(starts.len());
    let (mut total, mut best) = (0, None::<Fullest>);
    for charge in charges {
        let rank = |lo| starts.partition_point(|start| *start < lo);
        sums.add(rank(charge.lo), charge.surely);
        total += charge.surely;
        let from = charge.hi.saturating_sub(length);
        let taken = total - sums.before(rank(from));
        if best.as_ref().is_none_or(|best| taken > best.taken) {
            best = Some(Fullest { taken, from, until: charge.hi });
        }
    }
    best
}

/// The interval in which a bucket gave most beyond what flowed into it; `charges` in the order of
/// `hi`.
fn bucket(charges: &[&Charge], window: Micros, limit: u64) -> Option<Fullest> {
    let mut starts: Vec<_> = charges.iter().map(|charge| charge.lo).collect();
    starts.sort_unstable();
    starts.dedup();
    // For each start: what was taken since, and what had flowed until then, times the window.
    let flowed = |at: Micros| i128::from(at) * i128::from(limit);
    let mut tree = Tree::new(&starts.iter().map(|start| flowed(*start)).collect::<Vec<_>>());
    let mut begun = vec![false; starts.len()];
    let mut best: Option<(i128, Micros, Micros)> = None;
    for charge in charges {
        let rank = starts.partition_point(|start| *start < charge.lo);
        if !std::mem::replace(&mut begun[rank], true) {
            tree.add(rank..rank + 1, Tree::ASIDE);
        }
        tree.add(0..rank + 1, i128::from(charge.surely) * i128::from(window));
        let (level, at) = tree.most();
        let level = level - flowed(charge.hi);
        if best.is_none_or(|(most, ..)| level > most) {
            best = Some((level, starts[at], charge.hi));
        }
    }
    let (level, from, until) = best?;
    let taken = (level + flowed(until) - flowed(from)) / i128::from(window);
    Some(Fullest { taken: u64::try_from(taken).unwrap_or(0), from, until })
}

/// Sums of what comes before a place.
struct Sums(Vec<u64>);

impl Sums {
    fn new(places: usize) -> Self {
        Self(vec![0; places + 1])
    }

    fn add(&mut self, place: usize, amount: u64) {
        let mut at = place + 1;
        while at < self.0.len() {
            self.0[at] += amount;
            at += at & at.wrapping_neg();
        }
    }

    fn before(&self, place: usize) -> u64 {
        let (mut at, mut sum) = (place, 0);
        while at > 0 {
            sum += self.0[at];
            at -= at & at.wrapping_neg();
        }
        sum
    }
}

/// Places with values: adds to all in a range, finds the largest. A place does not count until
/// `ASIDE` was added to it.
struct Tree {
    leaves: usize,
    /// For each part: the most in it and where, with what was added to it, but not to larger parts.
    most: Vec<(i128, usize)>,
    added: Vec<i128>,
}

impl Tree {
    /// Far more than any sum.
    const ASIDE: i128 = i128::MAX / 4;

    fn new(values: &[i128]) -> Self {
        let leaves = values.len().next_power_of_two();
        let mut most = vec![(-2 * Self::ASIDE, 0); 2 * leaves];
        for (place, value) in values.iter().enumerate() {
            most[leaves + place] = (*value - Self::ASIDE, place);
        }
        for part in (1..leaves).rev() {
            most[part] = most[2 * part].max(most[2 * part + 1]);
        }
        Self { leaves, most, added: vec![0; 2 * leaves] }
    }

    fn add(&mut self, places: Range<usize>, amount: i128) {
        self.add_in(1, 0..self.leaves, &places, amount);
    }

    fn add_in(&mut self, part: usize, all: Range<usize>, places: &Range<usize>, amount: i128) {
        if places.end <= all.start || all.end <= places.start {
            return;
        }
        if places.start <= all.start && all.end <= places.end {
            self.most[part].0 += amount;
            self.added[part] += amount;
            return;
        }
        let middle = usize::midpoint(all.start, all.end);
        self.add_in(2 * part, all.start..middle, places, amount);
        self.add_in(2 * part + 1, middle..all.end, places, amount);
        let (most, at) = self.most[2 * part].max(self.most[2 * part + 1]);
        self.most[part] = (most + self.added[part], at);
    }

    fn most(&self) -> (i128, usize) {
        self.most[1]
    }
}
