//! What one node may admit by itself while the store does not answer, and what all nodes together
//! may then admit at most.
//!
//! # Shares
//! Of a limit L a node among N live ones has floor(L / N). Where that is nothing, single units go
//! around by the clock: in each turn some nodes have one unit each, and which ones is decided by the
//! node's rank and the number of the turn, so that no two have to talk. Two turns may lie in one
//! window, so half of the limit is out in each; of a limit of 1 every second turn is nobody's. As far
//! as the nodes' clocks agree, the nodes together therefore stay within L in any window.
//!
//! A permit that goes around may be held for longer than its turn: then there is at most one for
//! each node. Of a budget each node has a credit: a hundredth of it, shared by the nodes, once in
//! each period. What a node gave beyond it, because a call cost more than was estimated, is kept as
//! a debt of the credit.
//!
//! All of this counts the nodes that were last known. Nodes that start meanwhile are not among them:
//! one that never reached the store counts itself as the only one.

use super::{Algorithm, Degraded, Rule};

/// Of a budget all nodes together may spend so much: one hundredth.
const CREDIT: u64 = 100;
/// For so long a permit that goes around is one node's.
const PERMIT_TURN_MS: u64 = 10_000;

/// The fleet as a node last knew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// How many nodes are live, itself included; at least 1.
    pub live: u32,
    /// Its place among them, from 0.
    pub rank: u32,
}

/// What a node may admit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// As much as this rule allows.
    Of(Rule),
    /// Nothing now: it is other nodes' turn for so many milliseconds.
    Later(u64),
}

/// What nodes that cannot reach the store admit together, beside what the store had admitted
/// before. Once the store is back, all of it is charged there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most so much: in any window of the limit; of a budget in its period; of permits at the
    /// same time.
    AtMost(u64),
    /// Whatever is asked for.
    Unbounded,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { live: 1, rank: 0 }
    }
}

/// The share of one node at `now`, Unix time in milliseconds.
#[must_use]
pub fn share(rule: &Rule, fleet: Fleet, now: u64) -> Share {
    let live = u64::from(fleet.live.max(1));
    let part = rule.limit / live;
    let of = |limit, algorithm| Share::Of(Rule { id: rule.id, algorithm, limit });
    let (least, turn_ms) = match rule.algorithm {
        Algorithm::Budget { .. } => return of(part / CREDIT, rule.algorithm),
        Algorithm::Bucket { window_ms, burst } => (rule.limit.min(burst), window_ms),
        Algorithm::Window { slot_ms, slots } => {
            (rule.limit, slot_ms.saturating_mul(u64::from(slots)))
        }
        Algorithm::Permits => (rule.limit, PERMIT_TURN_MS),
    };
    if least == 0 || least >= live {
        return match rule.algorithm {
            Algorithm::Bucket { window_ms, burst } => {
                of(part, Algorithm::Bucket { window_ms, burst: burst / live })
            }
            other => of(part, other),
        };
    }
    let wait = until_turn(least, live, u64::from(fleet.rank) % live, turn_ms.max(1), now);
    match (wait, rule.algorithm) {
        (0, Algorithm::Bucket { window_ms, .. }) => {
            of(part.max(1), Algorithm::Bucket { window_ms, burst: 1 })
        }
        (0, other) => of(1, other),
        (wait, _) => Share::Later(wait),
    }
}

/// What the nodes may admit together under this policy while the store does not answer them.
#[must_use]
pub fn bound(policy: Degraded, rule: &Rule, live: u32) -> Bound {
    let live = u64::from(live.max(1));
    let part = rule.limit / live;
    let local = || match rule.algorithm {
        Algorithm::Budget { .. } => live * (part / CREDIT),
        Algorithm::Permits if part == 0 && rule.limit > 0 => live,
        Algorithm::Permits => live * part,
        Algorithm::Window { .. } if part == 0 => around(rule.limit),
        Algorithm::Window { .. } => live * part,
        // What is there at once, and what flows back in a window.
        Algorithm::Bucket { burst, .. } if rule.limit.min(burst) < live => {
            let units = units(rule.limit.min(burst)).min(rule.limit.min(burst));
            2 * units + units * part.max(1)
        }
        Algorithm::Bucket { burst, .. } => live * (burst / live) + live * part,
    };
    match policy {
        Degraded::FailClosed => Bound::AtMost(0),
        Degraded::FailOpen => Bound::Unbounded,
        Degraded::LocalShare => Bound::AtMost(local()),
    }
}

/// How long until a node has a turn; 0 if it has one. In each turn it is that of as many nodes as
/// there are units, one after the other.
fn until_turn(least: u64, live: u64, rank: u64, turn_ms: u64, now: u64) -> u64 {
    // Of a single unit every second turn is nobody's.
    let stride = if least == 1 { turn_ms.saturating_mul(2) } else { turn_ms };
    let units = units(least);
    let (number, into) = (now / stride, now % stride);
    let has = |number: u64| {
        let first = (number % live) * (units % live) % live;
        (rank + live - first) % live < units
    };
    if into < turn_ms && has(number) {
        return 0;
    }
    // Its turn comes at the latest when all others have had theirs.
    let ahead = (1..=live).find(|ahead| has(number + ahead)).unwrap_or(live);
    ahead * stride - into
}

/// How many units are out in one turn.
fn units(least: u64) -> u64 {
    (least / 2).max(1)
}

/// What goes around in two turns.
fn around(limit: u64) -> u64 {
    if limit <= 1 { limit } else { 2 * units(limit) }
}

#[cfg(test)]
mod tests;
