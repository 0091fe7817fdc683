//! The head of an answer, read before the codec sees it.
//!
//! The codec behind `awc` takes an informational head for the final one, gives an empty body to an
//! answer that ends with its connection, waits for a body behind 204 and 304, and waits for a
//! close behind an HTTP/1.0 answer of length 0. So the head is read here first: it decides
//! how the body is framed and whether the connection may be used again, and it is patched in
//! place, never longer or shorter, where the codec would draw other conclusions:
//!
//! - the version says 1.0 where the body ends with the connection, and 1.1 everywhere else;
//! - `content-length` and `transfer-encoding` of an answer without a body, and any `upgrade`, get
//!   a name that means nothing to the codec; `restore` gives a length its name back.
//!
//! Whatever leaves room for two readings is refused: bare LF, folded lines, two lengths, a length
//! beside chunks, an encoding that is not `chunked`, chunks in HTTP/1.0, 101 that nobody asked for.

use actix_http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use memchr::{memchr, memchr_iter};
use smallvec::SmallVec;

use super::framing::{Body, Malformed};

/// The longest head, and the most of informational ones before it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// The names that patching leaves behind.
const HIDDEN_LENGTH: HeaderName = HeaderName::from_static("xontent-length");
const HIDDEN_ENCODING: HeaderName = HeaderName::from_static("xransfer-encoding");
const HIDDEN_UPGRADE: HeaderName = HeaderName::from_static("xpgrade");

/// What stands at the beginning of the bytes that came.
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
    /// How its body is framed.
    pub(super) body: Body,
    /// Whether the connection may serve another request afterwards.
    pub(super) keep: bool,
    /// Whether header names were changed.
    pub(super) patched: bool,
}

/// What the lines of a head say.
#[derive(Default)]
struct Facts {
    version_10: bool,
    status: u16,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// Where the names of framing headers and of `upgrade` begin.
    framing_at: SmallVec<[usize; 2]>,
    upgrade_at: SmallVec<[usize; 1]>,
}

/// Reads the head at the beginning of `bytes` and patches it in place if it is final.
/// `to_head`: the answer is one to a HEAD request.
pub(super) fn sniff(bytes: &mut [u8], to_head: bool) -> Result<Sniffed, Malformed> {
    let Some((facts, len)) = read(bytes)? else { return Ok(Sniffed::Partial) };
    if facts.status < 200 {
        let switching = facts.status == 101;
        return if switching { Err(Malformed) } else { Ok(Sniffed::Interim(len)) };
    }
    if facts.chunked && (facts.length.is_some() || facts.version_10) {
        return Err(Malformed);
    }
    let bodyless = matches!(facts.status, 204 | 304);
    let body = match facts.length {
        _ if bodyless || to_head => Body::Length(0),
        Some(length) => Body::Length(length),
        None if facts.chunked => Body::CHUNKED,
        None => Body::UntilClose,
    };
    let until_close = body == Body::UntilClose;
    let persistent = if facts.version_10 { facts.keep_alive } else { true };
    let mut put = |at: usize, byte: u8| {
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    };
    put(VERSION_AT, if until_close { b'0' } else { b'1' });
    let framing = if bodyless { facts.framing_at.as_slice() } else { &[] };
    let hidden = framing.iter().chain(&facts.upgrade_at);
    let patched = hidden.clone().next().is_some();
    hidden.for_each(|&at| put(at, b'x'));
    Ok(Sniffed::Final(Head {
        len,
        body,
        keep: persistent && !facts.close && !until_close,
        patched,
    }))
}

/// Gives a length that `sniff` hid its name back, and drops the other hidden headers, which have
/// no meaning for anyone.
pub(super) fn restore(headers: &mut HeaderMap) {
    let length = headers.remove(HIDDEN_LENGTH).next();
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length);
    }
    headers.remove(HIDDEN_ENCODING);
    headers.remove(HIDDEN_UPGRADE);
}

const STATUS_LINE: &[u8] = b"HTTP/1.";
const VERSION_AT: usize = STATUS_LINE.len();

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
        let status = number(digits).and_then(|status| u16::try_from(status).ok());
        self.status = status.filter(|status| *status >= 100).ok_or(Malformed)?;
        Ok(())
    }

    fn header(&mut self, line: &[u8], at: usize) -> Result<(), Malformed> {
        let colon = memchr(b':', line).ok_or(Malformed)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Malformed)?;
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(Malformed);
        }
        // By length first: most headers are not compared at all.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = value_of(value).and_then(number).ok_or(Malformed)?;
                if self.length.replace(length).is_some() {
                    return Err(Malformed);
                }
                self.framing_at.push(at);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let value = value_of(value).ok_or(Malformed)?;
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                self.chunked = true;
                self.framing_at.push(at);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value_of(value).ok_or(Malformed)?.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade_at.push(at),
            _ => {}
        }
        Ok(())
    }
}

/// A header's value, from its colon on.
fn value_of(from_colon: &[u8]) -> Option<&[u8]> {
    from_colon.strip_prefix(b":").map(<[u8]>::trim_ascii)
}

/// Digits only: no sign, no list.
fn number(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then_some(digits).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
}

#[cfg(test)]
mod tests;
