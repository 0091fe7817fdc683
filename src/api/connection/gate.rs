//! Where each request on a connection ends, so that the next one does not go in before its turn.
//!
//! actix takes whatever comes: hundreds of requests into its queue, then 128 KiB of bytes, and then
//! it neither sleeps nor looks whether the client is still there. Its codec writes an answer by the
//! rules of the request that was read last, and broken bytes behind a request end the answer that
//! is under way. One request at a time has none of that.
//!
//! The gate follows what passes and judges nothing but the framing of chunks, of which actix does
//! not look at the trailer: a head that is ambiguous passes, and actix refuses it.
//!
//! Pure: bytes in, a decision out.

use memchr::memchr;

use crate::upstream::framing::Body;

/// More of a head than actix takes; it refuses what goes beyond.
const MAX_HEAD: usize = 256 << 10;

/// What the next byte belongs to.
#[derive(Debug)]
pub(super) enum Gate {
    /// A head, of which so much came before.
    Head(Vec<u8>),
    /// The body of the request at hand.
    Body(Body),
    /// The next request: this one is whole.
    Shut,
    /// Nothing: what came is no framing.
    Broken,
    /// Nobody knows: the head has no end.
    Open,
}

impl Gate {
    /// Before the first byte of a request.
    pub(super) const fn new() -> Self {
        Self::Head(Vec::new())
    }

    /// True once a request has passed to its last byte.
    pub(super) const fn is_shut(&self) -> bool {
        matches!(self, Self::Shut)
    }

    /// True once something came that cannot be part of the body.
    pub(super) const fn is_broken(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// Takes in what came and says how much of it belongs to the request at hand.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        if let Self::Head(before) = self {
            let Some((len, body)) = read_head(before, bytes) else {
                if before.len() > MAX_HEAD {
                    *self = Self::Open;
                }
                return bytes.len();
            };
            *self = Self::Body(body);
            passed = len;
        }
        match self {
            Self::Body(body) => {
                passed += body.feed(bytes.get(passed..).unwrap_or_default());
                if body.is_malformed() {
                    *self = Self::Broken;
                } else if body.is_complete() {
                    *self = Self::Shut;
                }
                passed
            }
            Self::Open => bytes.len(),
            Self::Head(_) | Self::Shut | Self::Broken => passed,
        }
    }
}

/// How many of `bytes` end the head that began with `before`, and the body that it announces;
/// `None`, and the bytes in `before`, where they do not.
fn read_head(before: &mut Vec<u8>, bytes: &[u8]) -> Option<(usize, Body)> {
    // A request may have empty lines before it.
    let empty = if before.is_empty() {
        bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
    } else {
        0
    };
    let bytes = bytes.get(empty..).unwrap_or_default();
    if before.is_empty() {
        // A head that comes in one piece, as nearly all do, is not copied.
        if let Some(len) = end_of_head(bytes, 0) {
            return Some((empty + len, body_of(bytes.get(..len).unwrap_or_default())));
        }
        before.extend_from_slice(bytes);
        return None;
    }
    let came_before = before.len();
    before.extend_from_slice(bytes);
    // The empty line at the end has two bytes at most, and a line feed before it.
    let len = end_of_head(before, came_before.saturating_sub(2))?;
    let body = body_of(before.get(..len).unwrap_or_default());
    Some((len - came_before, body))
}

/// The length of the head, of which the end is not before `from`. actix takes a line feed alone
/// for the end of a line.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// The body that a head announces. One that announces two is refused by actix.
fn body_of(head: &[u8]) -> Body {
    let mut body = Body::Length(0);
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest.get(..end).unwrap_or_default();
        rest = rest.get(end + 1..).unwrap_or_default();
        // By their first letter: most headers are not compared at all.
        match line.first() {
            Some(b'C' | b'c') => {
                if let Some(length) = value(line, b"content-length") {
                    let length = str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                    body = Body::Length(length.unwrap_or(0));
                }
            }
            Some(b'T' | b't') if value(line, b"transfer-encoding").is_some() => {
                return Body::CHUNKED;
            }
            _ => {}
        }
    }
    body
}

/// The value of the header of this name, if this is its line.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: [&str; 6] = [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length:  5 \r\nhost: a\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
         5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "POST / HTTP/1.1\r\ncontent-lengthy: 5\r\nx: content-length: 5\r\ncontent-length: 0\r\n\r\n",
        "POST / HTTP/1.1\nhost: a\ncontent-length: 3\n\r\nabc",
    ];

    /// Feeds the bytes in pieces of this size and says how many pass.
    fn pass(gate: &mut Gate, bytes: &str, piece: usize) -> usize {
        let mut passed = 0;
        for piece in bytes.as_bytes().chunks(piece) {
            let taken = gate.pass(piece);
            passed += taken;
            if taken < piece.len() {
                break;
            }
        }
        passed
    }

    #[test]
    fn every_request_passes_to_its_last_byte_however_it_is_cut() {
        for request in REQUESTS {
            for next in REQUESTS {
                let both = format!("{request}{}", next.trim_start());
                for piece in 1..=both.len() {
                    let mut gate = Gate::new();
                    let passed = pass(&mut gate, &both, piece);
                    assert_eq!((passed, gate.is_shut()), (request.len(), true), "{both:?} {piece}");
                }
            }
        }
    }

    #[test]
    fn broken_chunks_pass_to_their_last_good_byte() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (good, bad) in [("0\r\nx: y", "\n\r\n"), ("0\r\nx: y\r\n", "\n"), ("5 ", "x\r\n")] {
            let all = format!("{head}{good}{bad}");
            for piece in 1..=all.len() {
                let mut gate = Gate::new();
                let passed = pass(&mut gate, &all, piece);
                assert_eq!((passed, gate.is_broken()), (head.len() + good.len(), true), "{all:?}");
            }
        }
    }

    #[test]
    fn a_head_without_end_is_left_to_actix() {
        let mut gate = Gate::new();
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(gate.pass(endless.as_bytes()), endless.len());
        assert!(matches!(gate, Gate::Open));
        assert_eq!(gate.pass(b"\r\n\r\nmore"), 8);
    }
}
