//! The head of an answer: how its body is framed, whether the connection may be used again, and its
//! headers.
//!
//! Whatever leaves room for two readings is refused: bare LF, folded lines, two lengths, a length
//! beside chunks, an encoding that is not `chunked`, chunks in HTTP/1.0, 101 that nobody asked for.
//! What an answer without a body says of its framing, and any `upgrade`, mean nothing to anyone
//! behind this connection; only a length is passed on.

use actix_http::StatusCode;
use actix_http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use memchr::{memchr, memchr_iter};
use smallvec::SmallVec;

use super::framing::{Body, Malformed};
use crate::domain::Headers;

/// The longest head, and the most of informational ones before it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// The most headers in it.
const MAX_HEADERS: usize = 96;

/// What stands at the beginning of the bytes that came.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and the large one is usual")]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// Not yet a whole head.
    Partial,
    /// An informational head of so many bytes, to be dropped.
    Interim(usize),
    /// The final head.
    Final(Head),
}

/// A final head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length in bytes.
    pub(super) len: usize,
    /// Its status.
    pub(super) status: StatusCode,
    /// How its body is framed.
    pub(super) body: Body,
    /// Whether the connection may serve another request afterwards.
    pub(super) keep: bool,
    fields: Fields,
}

/// Where the headers stand.
type Fields = SmallVec<[Field; 16]>;

/// Where a header begins, its colon is, and its line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    start: usize,
    colon: usize,
    end: usize,
}

/// What the lines of a head say.
#[derive(Default)]
struct Facts {
    version_10: bool,
    status: StatusCode,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    fields: Fields,
}

/// Reads the head at the beginning of `bytes`. `to_head`: the answer is one to a HEAD request.
pub(super) fn sniff(bytes: &[u8], to_head: bool) -> Result<Sniffed, Malformed> {
    let Some((facts, len)) = read(bytes)? else { return Ok(Sniffed::Partial) };
    if facts.status.is_informational() {
        let switching = facts.status == StatusCode::SWITCHING_PROTOCOLS;
        return if switching { Err(Malformed) } else { Ok(Sniffed::Interim(len)) };
    }
    if facts.chunked && (facts.length.is_some() || facts.version_10) {
        return Err(Malformed);
    }
    let body = match facts.length {
        _ if is_bodyless(facts.status) || to_head => Body::Length(0),
        Some(length) => Body::Length(length),
        None if facts.chunked => Body::CHUNKED,
        None => Body::UntilClose,
    };
    let persistent = if facts.version_10 { facts.keep_alive } else { true };
    let keep = persistent && !facts.close && body != Body::UntilClose;
    Ok(Sniffed::Final(Head { len, status: facts.status, body, keep, fields: facts.fields }))
}

fn is_bodyless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Head {
    /// The headers; `bytes` are those that it was read from. The values share one copy of the head,
    /// so that a header that is kept does not keep the buffer that much else was read into.
    pub(super) fn headers(&self, bytes: &[u8]) -> Result<Headers, Malformed> {
        let shared = Bytes::copy_from_slice(bytes.get(..self.len).ok_or(Malformed)?);
        let mut headers = Headers::with_capacity(self.fields.len());
        for field in &self.fields {
            let name = shared.get(field.start..field.colon).ok_or(Malformed)?;
            let name = HeaderName::from_bytes(name).map_err(|_| Malformed)?;
            let value = shared.get(field.colon..field.end).and_then(value_of).ok_or(Malformed)?;
            let value = HeaderValue::from_maybe_shared(shared.slice_ref(value));
            let value = value.map_err(|_| Malformed)?;
            let hidden = name == header::UPGRADE
                || name == header::TRANSFER_ENCODING && is_bodyless(self.status);
            if !hidden {
                headers.append(name, value);
            }
        }
        Ok(headers)
    }
}

const STATUS_LINE: &[u8] = b"HTTP/1.";

/// The facts and the length of the head, or `None` where it is not complete.
fn read(bytes: &[u8]) -> Result<Option<(Facts, usize)>, Malformed> {
    if bytes.iter().zip(STATUS_LINE).any(|(is, should)| is != should) {
        return Err(Malformed);
    }
    let mut facts = Facts::default();
    let mut start = 0;
    for lf in memchr_iter(b'\n', bytes) {
        let line = bytes.get(start..lf).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.ok_or(Malformed)?;
        if start == 0 {
            facts.status_line(line)?;
        } else if line.is_empty() {
            // However it was cut on its way, a head beyond the bound is refused.
            return if lf < MAX_HEAD { Ok(Some((facts, lf + 1))) } else { Err(Malformed) };
        } else {
            facts.header(line, start)?;
        }
        start = lf + 1;
    }
    if bytes.len() > MAX_HEAD { Err(Malformed) } else { Ok(None) }
}

impl Facts {
    fn status_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let rest = line.strip_prefix(STATUS_LINE).ok_or(Malformed)?;
        let (minor, rest) = rest.split_first().ok_or(Malformed)?;
        self.version_10 = match minor {
            b'0' => true,
            b'1' => false,
            _ => return Err(Malformed),
        };
        let rest = rest.strip_prefix(b" ").ok_or(Malformed)?;
        let (digits, reason) = rest.split_at_checked(3).ok_or(Malformed)?;
        if !matches!(reason.first(), None | Some(b' ')) {
            return Err(Malformed);
        }
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if reason.iter().any(control) {
            return Err(Malformed);
        }
        // Digits only, three of them, and 100 at least.
        self.status = StatusCode::from_bytes(digits).map_err(|_| Malformed)?;
        Ok(())
    }

    fn header(&mut self, line: &[u8], at: usize) -> Result<(), Malformed> {
        let colon = memchr(b':', line).ok_or(Malformed)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Malformed)?;
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(Malformed);
        }
        if self.fields.len() == MAX_HEADERS {
            return Err(Malformed);
        }
        self.fields.push(Field { start: at, colon: at + colon, end: at + line.len() });
        // By length first: most headers are not compared at all.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = value_of(value).and_then(number).ok_or(Malformed)?;
                if self.length.replace(length).is_some() {
                    return Err(Malformed);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let value = value_of(value).ok_or(Malformed)?;
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                self.chunked = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value_of(value).ok_or(Malformed)?.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A header's value, from its colon on.
fn value_of(from_colon: &[u8]) -> Option<&[u8]> {
    let mut value = from_colon.strip_prefix(b":")?;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Some(value)
}

/// Digits only: no sign, no list.
fn number(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then_some(digits).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
}

#[cfg(test)]
mod tests;
