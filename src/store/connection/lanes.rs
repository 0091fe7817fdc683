//! One breaker and one clock for each master. On one master there is one; on a cluster the slots
//! are cut into ranges, because the client does not say which master holds one: a master that is
//! away is learnt of for each of its ranges, and never closes the others'.

use std::time::Instant;

use super::super::breaker::Breaker;
use super::super::master_clock::MasterClock;

/// Ranges of slots on a cluster.
const RANGES: usize = 64;
/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// What is known of one master.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) breaker: Breaker,
    pub(super) clock: MasterClock,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Lanes {
    fresh: Lane,
    lanes: Vec<Lane>,
}

impl Lanes {
    /// One master, of which nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        let fresh = Lane { breaker: Breaker::default(), clock: MasterClock::new(now) };
        Self { fresh, lanes: vec![fresh] }
    }

    /// It is a cluster.
    pub(super) fn spread(&mut self) {
        if self.lanes.len() == 1 {
            self.lanes = vec![self.fresh; RANGES];
        }
    }

    /// All lanes, for what is learnt while connecting.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// That of a key.
    pub(super) fn of(&mut self, key: &str) -> &mut Lane {
        let range = if self.lanes.len() == 1 { 0 } else { slot(key) * RANGES / SLOTS };
        self.lanes.get_mut(range).unwrap_or(&mut self.fresh)
    }
}

/// The slot of a key: CRC16 (XMODEM) of what is in its first braces.
fn slot(key: &str) -> usize {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("a{123456789}b"), 0x31c3);
        assert_eq!(slot("a{}b"), slot("a{}b"));
    }

    #[test]
    fn keys_of_one_tag_share_a_lane() {
        let mut lanes = Lanes::new(Instant::now());
        lanes.spread();
        let one: *const Lane = lanes.of("f:v1:{t:acme}:open");
        let other: *const Lane = lanes.of("f:v1:{t:acme}:scope:tenant");
        assert_eq!(one, other);
    }
}
