//! Usage of one tag by the hour.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use foldhash::fast::RandomState;

use super::MAX_ROWS_OF_HOUR;
use crate::policy::limit::{Counts, Row};

/// An hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;
/// Usage is kept for so many hours: 32 days, so that a month is always whole.
const KEPT_HOURS: u64 = 32 * 24;

/// Rows of each hour.
#[derive(Debug, Default)]
pub(super) struct Usage {
    hours: BTreeMap<u64, HashMap<Row, Counts, RandomState>>,
    /// Of all hours.
    rows: usize,
}

impl Usage {
    /// Adds to a row; to the row `other` where there is no room for a new one.
    pub(super) fn add(&mut self, hour: u64, row: &Row, counts: &Counts, room: usize) {
        self.row(hour, row, room).add(counts);
    }

    /// Takes back what was added to a row.
    pub(super) fn take_back(&mut self, hour: u64, row: &Row, counts: &Counts, room: usize) {
        self.row(hour, row, room).take_back(counts);
    }

    pub(super) fn rows(&self, hours: Range<u64>) -> Vec<(u64, Row, Counts)> {
        if hours.is_empty() {
            return Vec::new();
        }
        let rows = self.hours.range(hours).flat_map(|(hour, rows)| {
            rows.iter().map(|(row, counts)| (*hour, row.clone(), *counts))
        });
        rows.collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Forgets hours that are too old.
    pub(super) fn tidy(&mut self, now: u64) {
        let oldest = (now / HOUR_MS).saturating_sub(KEPT_HOURS);
        while self.hours.first_key_value().is_some_and(|(hour, _)| *hour < oldest) {
            let gone = self.hours.pop_first().map_or(0, |(_, rows)| rows.len());
            self.rows = self.rows.saturating_sub(gone);
        }
    }

    fn row(&mut self, hour: u64, row: &Row, room: usize) -> &mut Counts {
        let rows = self.hours.entry(hour).or_default();
        // Nearly always: the row is there, and is found without a copy of its names.
        if rows.contains_key(row) {
            return rows.get_mut(row).expect("it was just seen");
        }
        let full = room == 0 || rows.len() >= MAX_ROWS_OF_HOUR;
        let place = if full { Row::other() } else { row.clone() };
        if !rows.contains_key(&place) {
            self.rows += 1;
        }
        rows.entry(place).or_default()
    }
}
