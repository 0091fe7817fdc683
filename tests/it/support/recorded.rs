//! What Redis holds of limits, read past the product: by the names and the bytes that are written
//! down for it, with a connection of the test's own.

use std::collections::BTreeMap;

use super::redis::Server;
use crate::judge::history::{Recorded, Usage};

/// The keys with this noun.
pub(crate) fn keys(server: &Server, noun: &str) -> Vec<String> {
    let keys = server.keys("flotilla").into_iter();
    let has =
        |key: &String| key.split("}:").nth(1).is_some_and(|it| it.split(':').next() == Some(noun));
    keys.filter(has).collect()
}

/// Permits that somebody holds.
pub(crate) fn permits(server: &Server) -> u64 {
    let now = format!("({}", server.now_ms());
    let count = |key: &String| server.ask::<u64>(&["ZCOUNT", key, &now, "+inf"]);
    keys(server, "permits").iter().map(count).sum()
}

/// Attempts that are not settled.
pub(crate) fn members(server: &Server) -> u64 {
    keys(server, "open").iter().map(|key| server.ask::<u64>(&["ZCARD", key])).sum()
}

/// Usage by key and model.
pub(crate) fn usage(server: &Server) -> BTreeMap<String, Recorded> {
    let mut rows: BTreeMap<String, Recorded> = BTreeMap::new();
    for key in keys(server, "usage") {
        let hash: BTreeMap<Vec<u8>, Vec<u8>> = server.ask(&["HGETALL", &key]);
        for (row, counts) in hash {
            let parts: Vec<_> = row.split(|byte| *byte == 0x1f).collect();
            assert_eq!(parts.len(), 4, "a row is key, pool, target, model: {row:?}");
            let part = |at: usize| String::from_utf8_lossy(parts[at]).into_owned();
            let row = rows.entry(format!("{} {}", part(0), part(3))).or_default();
            let count = |at: usize| number(&counts[at * 8..at * 8 + 8]);
            row.requests += count(0);
            row.attempts += count(1);
            let usage = Usage { input: count(2), output: count(3), cost: count(6) };
            row.usage = row.usage.plus(usage);
            row.node_lost += count(9);
        }
    }
    rows
}

/// A count as Redis keeps it: a double, lowest byte first.
fn number(bytes: &[u8]) -> u64 {
    let double = f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let count = double as u64;
    assert!((count as f64 - double).abs() < 0.5, "a count is whole and not below 0: {double}");
    count
}
