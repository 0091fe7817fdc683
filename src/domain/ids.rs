//! Ids that the node makes itself: random, so that no two nodes ever need to agree on one.

use std::fmt;

/// The id of one client request: 128 random bits, made by the node that received it.
///
/// A client's own `x-request-id` is logged and echoed, but never used as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// An id from 128 bits of a cryptographic random source.
    #[must_use]
    pub const fn from_random(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The random bits themselves.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id as 32 lower-case hexadecimal digits, without allocating.
    #[must_use]
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_hex()).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of one attempt of a request: what was reserved for it is settled under this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// The request.
    pub request: RequestId,
    /// Which of its attempts, from 1.
    pub attempt: u8,
}

impl AttemptId {
    /// The request's bits, then the number of the attempt.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&self.request.to_bytes());
        bytes[16] = self.attempt;
        bytes
    }

    /// The id that `to_bytes` wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 17]) -> Self {
        let mut request = [0; 16];
        request.copy_from_slice(&bytes[..16]);
        Self { request: RequestId::from_random(request), attempt: bytes[16] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_thirty_two_digits() {
        let id = RequestId::from_random([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0dfeff");
    }
}
