//! Finds the events of a `text/event-stream` in bytes that are split anywhere.
//!
//! Works on bytes and hands out whole events only, so that no character and no JSON is ever cut.
//! An event that lies in one chunk is a slice of it; only one that is spread over chunks is copied.
//! Line ends may be LF, CR LF or CR.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// The largest event. A final image in base64 takes several MiB; anything beyond this is a stream
/// that forgot its blank lines.
pub const MAX_EVENT: usize = 16 << 20;

/// Takes chunks in and gives events out.
#[derive(Debug)]
pub struct Scanner {
    /// What of the last chunk is not yet handed out.
    chunk: Bytes,
    /// The beginning of an event whose end is not here yet.
    held: BytesMut,
    /// Nothing of the current line was seen so far.
    line_empty: bool,
    /// The last byte was a CR, and an LF may follow that belongs to it; and whether the event ends
    /// as soon as that is known.
    after_cr: Option<bool>,
    /// The last line ended in a CR alone, so none of the next ones needs to wait for an LF.
    bare_cr: bool,
    /// No event was handed out yet: a byte order mark may come.
    first: bool,
}

/// One block of lines up to and including the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they came.
    pub raw: Bytes,
    /// The `data` lines joined by LF; `None` where there was none.
    pub data: Option<Bytes>,
    /// The last `event` field.
    pub kind: Option<Bytes>,
    /// Whether there was any line that is neither blank nor a comment.
    pub fields: bool,
    /// Whether a byte order mark may stand at its start.
    first: bool,
    /// Where the data begins, if it stands in one line.
    data_at: Option<usize>,
}

/// The only way in which scanning fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {MAX_EVENT} bytes")]
pub struct ScanError;

// === impl Scanner ===

impl Default for Scanner {
    fn default() -> Self {
        Self {
            chunk: Bytes::new(),
            held: BytesMut::new(),
            line_empty: true,
            after_cr: None,
            bare_cr: false,
            first: true,
        }
    }
}

impl Scanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk. The one before must be used up: `next_event` gave `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the chunk before is used up");
        self.chunk = chunk;
    }

    /// The next whole event, or `None` where more bytes are needed.
    ///
    /// # Errors
    /// Where an event is larger than `MAX_EVENT`; the scanner is of no use afterwards.
    pub fn next_event(&mut self) -> Result<Option<Event>, ScanError> {
        let end = self.boundary();
        let len = self.held.len() + end.unwrap_or(self.chunk.len());
        if len > MAX_EVENT {
            return Err(ScanError);
        }
        let Some(end) = end else {
            let rest = std::mem::take(&mut self.chunk);
            self.held.extend_from_slice(&rest);
            return Ok(None);
        };
        let piece = self.chunk.split_to(end);
        let raw = if self.held.is_empty() {
            piece
        } else {
            self.held.extend_from_slice(&piece);
            self.held.split().freeze()
        };
        let first = std::mem::take(&mut self.first);
        Ok(Some(Event::parse(raw, first)))
    }

    /// What stands at the end of the stream without a blank line, as if it had one.
    pub fn finish(&mut self) -> Option<Event> {
        let raw = self.held.split().freeze();
        let first = std::mem::take(&mut self.first);
        (!raw.is_empty()).then(|| Event::parse(raw, first))
    }

    /// The number of bytes of the chunk up to the end of the current event.
    fn boundary(&mut self) -> Option<usize> {
        let mut at = 0;
        loop {
            if let Some(ends) = self.after_cr {
                match self.chunk.get(at) {
                    Some(b'\n') => {
                        at += 1;
                        self.bare_cr = false;
                    }
                    Some(_) => self.bare_cr = true,
                    None => return None,
                }
                self.after_cr = None;
                self.line_empty = true;
                if ends {
                    return Some(at);
                }
            }
            let rest = self.chunk.get(at..).unwrap_or_default();
            let Some(offset) = memchr2(b'\n', b'\r', rest) else {
                self.line_empty &= rest.is_empty();
                return None;
            };
            let blank = self.line_empty && offset == 0;
            let feed = rest.get(offset) == Some(&b'\n');
            at += offset + 1;
            if feed {
                self.line_empty = true;
                self.bare_cr = false;
                if blank {
                    return Some(at);
                }
            } else {
                // Where lines end in CR alone no LF is waited for. One that comes all the same
                // begins the next event, where it is no line, so that the events are the same
                // however the stream was cut.
                let at_once = blank && self.bare_cr;
                self.after_cr = Some(blank && !at_once);
                if at_once {
                    return Some(at);
                }
            }
        }
    }
}

// === impl Event ===

impl Event {
    fn parse(raw: Bytes, first: bool) -> Self {
        if let Some(value) = only_line(&raw) {
            let (data, data_at) = (Some(raw.slice(value.clone())), Some(value.start));
            return Self { raw, data, kind: None, fields: true, first, data_at };
        }
        let mut single: Option<Range<usize>> = None;
        let mut joined: Option<Vec<u8>> = None;
        let mut kind = None;
        let mut fields = false;
        for line in lines(&raw, first) {
            let Some((name, value)) = field(&raw, line) else { continue };
            fields = true;
            match (name, &mut single, &mut joined) {
                (b"data", None, _) => single = Some(value),
                (b"data", Some(before), None) => {
                    let mut text = part(&raw, before).to_vec();
                    text.push(b'\n');
                    text.extend_from_slice(part(&raw, &value));
                    joined = Some(text);
                }
                (b"data", Some(_), Some(text)) => {
                    text.push(b'\n');
                    text.extend_from_slice(part(&raw, &value));
                }
                (b"event", ..) => kind = Some(raw.slice(value)),
                // `id` and `retry` speak to the client's reader only.
                _ => {}
            }
        }
        let data_at = single.as_ref().filter(|_| joined.is_none()).map(|value| value.start);
        let data = joined.map(Bytes::from).or_else(|| single.map(|value| raw.slice(value)));
        Self { raw, data, kind, fields, first, data_at }
    }

    /// Where a range of `data` stands in `raw`. It is not empty, and neither begins nor ends with an
    /// LF that joins two lines.
    #[must_use]
    pub fn place(&self, range: Range<usize>) -> Range<usize> {
        if let Some(at) = self.data_at {
            return at + range.start..at + range.end;
        }
        let mut passed = 0;
        let mut found = 0..0;
        for line in lines(&self.raw, self.first) {
            let Some((b"data", value)) = field(&self.raw, line) else { continue };
            let here = passed..passed + value.len();
            if here.contains(&range.start) {
                found.start = value.start + (range.start - here.start);
            }
            if here.contains(&range.end.saturating_sub(1)) {
                found.end = value.start + (range.end - here.start);
            }
            passed = here.end + 1;
        }
        found
    }
}

fn part<'a>(raw: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    raw.get(range.clone()).unwrap_or_default()
}

/// The place of the data in an event that is one line of it, as nearly all are.
fn only_line(raw: &[u8]) -> Option<Range<usize>> {
    const NAME: &[u8] = b"data: ";
    let data = raw.strip_prefix(NAME)?.strip_suffix(b"\n\n")?;
    memchr2(b'\n', b'\r', data).is_none().then(|| NAME.len()..NAME.len() + data.len())
}

/// The places of all lines, without their ends.
fn lines(raw: &[u8], first: bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = if first && raw.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    std::iter::from_fn(move || {
        let rest = raw.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let len = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let crlf = rest.get(len..).is_some_and(|end| end.starts_with(b"\r\n"));
        at += len + if crlf { 2 } else { 1 };
        Some(start..start + len)
    })
}

/// The name of a field and the place of its value; `None` for a comment or a blank line.
fn field(raw: &[u8], line: Range<usize>) -> Option<(&[u8], Range<usize>)> {
    let text = part(raw, &line);
    let colon = memchr(b':', text).unwrap_or(text.len());
    let name = text.get(..colon).filter(|name| !name.is_empty())?;
    let mut start = (colon + 1).min(text.len());
    if text.get(start) == Some(&b' ') {
        start += 1;
    }
    Some((name, line.start + start..line.end))
}

#[cfg(test)]
mod tests;
