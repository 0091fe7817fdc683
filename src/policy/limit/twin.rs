//! The twin: the state of tags, and what the commands of `policy::limit` do to it.
//!
//! It does what the scripts on Redis do, command by command, and nothing else knows how. It serves
//! a node that has no Redis, for good, and every node while Redis is away.
//!
//! # What is kept, and for how long
//! Counters until they are empty, permits and members until they are released or settled or their
//! leases end, usage for 32 days, what was recorded of lost members until the next day is over. Each
//! command clears away a few things whose time is over, so no command ever stops to sweep.
//!
//! # Bounds
//! Of counters' owners (scopes) there are at most `MAX_SCOPES`: beyond it the one whose counters are
//! empty the soonest is forgotten, and counted as forgotten. Rows of usage are at most
//! `MAX_ROWS_OF_HOUR` for a tag and hour and `MAX_ROWS` in all; what finds no row goes to the row
//! `other`. Members and permits are as many as there are attempts in flight, which the node bounds.

mod command;
mod expiry;
mod tag;
mod usage;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{
    Admit, Applied, Batch, Counts, Lapsed, Renew, Row, Rule, Settle, Standing, TopUp, Verdict,
};
use expiry::Expiry;
use tag::Tag;

/// Counters' owners in one twin. With a ring of 60 slots each has about 700 bytes.
pub const MAX_SCOPES: usize = 1 << 15;
/// Rows of usage of one tag in one hour.
pub const MAX_ROWS_OF_HOUR: usize = 10_000;
/// Rows of usage in one twin.
pub const MAX_ROWS: usize = 1 << 17;

/// The state of some tags.
#[derive(Debug, Default)]
pub struct Twin {
    tags: HashMap<Arc<str>, Tag, RandomState>,
    expiry: Expiry,
    scopes: usize,
    rows: usize,
    forgotten: u64,
}

impl Twin {
    /// Takes all that is asked for, or nothing. The command is void after `deadline_ms`; what it
    /// takes is leased until `lease_end_ms`.
    pub fn admit(
        &mut self,
        admit: &Admit,
        deadline_ms: u64,
        lease_end_ms: u64,
        now: u64,
    ) -> Verdict {
        if now > deadline_ms {
            return Verdict::Late;
        }
        let before = self.enter(&admit.tag, now);
        let verdict = self.tag(&admit.tag).admit(admit, deadline_ms, lease_end_ms, now);
        self.leave(&admit.tag, &admit.scopes, before, now);
        verdict
    }

    /// Takes more for a member, or nothing; each step once.
    pub fn top_up(&mut self, more: &TopUp, deadline_ms: u64, now: u64) -> Verdict {
        if now > deadline_ms {
            return Verdict::Late;
        }
        let before = self.enter(&more.tag, now);
        let verdict = self.tag(&more.tag).top_up(more, now);
        self.leave(&more.tag, &more.scopes, before, now);
        verdict
    }

    /// Applies a batch, once.
    pub fn apply(&mut self, batch: &Batch, now: u64) -> Applied {
        let before = self.enter(&batch.tag, now);
        let fresh = self.tag(&batch.tag).is_fresh(batch.incarnation, batch.number, now);
        self.leave(&batch.tag, &[], before, now);
        if !fresh {
            return Applied::Before;
        }
        for settle in &batch.settles {
            self.settle(&batch.tag, settle, now);
        }
        for (hour, row, counts) in &batch.usage {
            self.record(&batch.tag, *hour, row, counts, now);
        }
        self.tag(&batch.tag).trim(now);
        Applied::Now
    }

    /// Applies one settle, for whoever calls directly and needs no numbers.
    pub fn settle(&mut self, tag: &Arc<str>, settle: &Settle, now: u64) {
        let before = self.enter(tag, now);
        let room = MAX_ROWS.saturating_sub(self.rows);
        self.tag(tag).settle(settle, room, now);
        self.leave(tag, &settle.scopes, before, now);
    }

    /// Adds usage.
    pub fn record(&mut self, tag: &Arc<str>, hour: u64, row: &Row, counts: &Counts, now: u64) {
        let before = self.enter(tag, now);
        let room = MAX_ROWS.saturating_sub(self.rows);
        self.tag(tag).usage.add(hour, row, counts, room);
        self.leave(tag, &[], before, now);
    }

    /// Moves lease ends: of permits always, of members only where they still are ones.
    pub fn renew(&mut self, tag: &Arc<str>, leases: &[Renew], lease_end_ms: u64, now: u64) {
        let before = self.enter(tag, now);
        let state = self.tag(tag);
        leases.iter().for_each(|lease| state.renew(lease, lease_end_ms));
        self.leave(tag, &[], before, now);
    }

    /// Members whose lease has ended, the longest ended first.
    #[must_use]
    pub fn lapsed(&self, tag: &str, limit: usize, now: u64) -> Vec<Lapsed> {
        self.tags.get(tag).map(|tag| tag.lapsed(limit, now)).unwrap_or_default()
    }

    /// How limits stand, in the order asked.
    #[must_use]
    pub fn standing(&self, tag: &str, asked: &[(Arc<str>, Rule)], now: u64) -> Vec<Standing> {
        let tag = self.tags.get(tag);
        let used = |(scope, rule): &(Arc<str>, Rule)| Standing {
            used: tag.map_or(0, |tag| tag.used(scope, rule, now)),
        };
        asked.iter().map(used).collect()
    }

    /// Usage of these hours, oldest first.
    #[must_use]
    pub fn usage(&self, tag: &str, hours: Range<u64>) -> Vec<(u64, Row, Counts)> {
        self.tags.get(tag).map(|tag| tag.usage.rows(hours)).unwrap_or_default()
    }

    /// How many counters' owners there are.
    #[must_use]
    pub fn scopes(&self) -> usize {
        self.scopes
    }

    /// How many of them were forgotten so far although they counted something.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many tags there are.
    #[must_use]
    pub fn tags(&self) -> usize {
        self.tags.len()
    }
}

#[cfg(test)]
mod tests;
