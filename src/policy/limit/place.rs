//! The texts of tags and scopes: where a limit counts.
//!
//! They become parts of keys in Redis, so names are encoded until nothing in them can end a hash
//! tag or a part, and what a client chose stands there as a hash: short, and nobody's business.

use std::fmt::Write;
use std::sync::Arc;

use super::LimitId;
use crate::domain::KeyHash;

/// Digits of the hash that stands for a value.
const DIGITS: usize = 16;

/// The tag of a tenant: its limits, its budgets, its usage.
#[must_use]
pub fn tenant(tenant: &str) -> Arc<str> {
    format!("t:{}", name(tenant)).into()
}

/// The tag of a target.
#[must_use]
pub fn target(target: &str) -> Arc<str> {
    format!("g:{}", name(target)).into()
}

/// The tag of a limit that has one of its own for each value it is spread over; none for one that
/// counts everything together.
#[must_use]
pub fn own(id: LimitId, value: Option<&str>) -> Arc<str> {
    match value {
        None => format!("l:{}", id.as_str()).into(),
        Some(value) => format!("l:{}:{value}", id.as_str()).into(),
    }
}

/// A name from the document as part of a key.
#[must_use]
pub fn name(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    encoded
}

/// A value that a client chose as part of a key.
#[must_use]
pub fn hashed(value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hash = KeyHash::of(value.as_bytes()).to_bytes();
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(DIGITS);
    digits.map(|digit| char::from(HEX[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_a_tag_or_a_part() {
        assert_eq!(&*tenant("acme-1.x_Y"), "t:acme-1.x_Y");
        assert_eq!(&*tenant("a}b:c,d=e%é"), "t:a%7Db%3Ac%2Cd%3De%25%C3%A9");
        assert_eq!(&*own(LimitId(*b"abcdefgh"), Some("ip=00")), "l:abcdefgh:ip=00");
    }

    #[test]
    fn a_clients_value_is_sixteen_digits() {
        let hash = hashed("somebody@example.com");
        assert_eq!(hash.len(), DIGITS);
        assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(hash, hashed("somebody@example.org"));
    }
}
