//! Decodes a compressed answer beside its untouched bytes, to find what it used.
//!
//! Identity is asked of every provider; this is for those that compress nevertheless. What comes
//! out is bounded twice, for each step and as a multiple of what went in, because a few kilobytes
//! can be made to unfold into gigabytes. Brotli is not decoded; usage is then an estimate.

mod zstd;

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// The most that one step may give: far more than one chunk of an honest answer unfolds into.
const MAX_STEP: usize = 16 << 20;

/// How much an answer may unfold in all, and what is always allowed. JSON and text of real answers
/// stay below 50; a bomb reaches 1,000 and more.
const MAX_RATIO: u64 = 200;
const ALLOWANCE: u64 = 1 << 20;

/// A decoder of one answer.
pub struct Decoder {
    inner: Inner,
    taken: u64,
    given: u64,
}

/// Why decoding ended; the answer itself is passed on all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not what the encoding says.
    #[error("the compressed answer is not valid")]
    Invalid,
    /// More came out than may.
    #[error("the compressed answer unfolds too far")]
    TooLarge,
}

enum Inner {
    Gzip(MultiGzDecoder<Sink>),
    /// Not known yet which of the two; what is `deflate` by name may be either.
    Deflate(Vec<u8>),
    Zlib(ZlibDecoder<Sink>),
    Raw(DeflateDecoder<Sink>),
    Zstd(Box<zstd::Frames>),
}

/// Takes what comes out of one step, up to a bound.
#[derive(Debug, Default)]
struct Sink {
    bytes: Vec<u8>,
    full: bool,
}

impl Decoder {
    /// A decoder for the value of a `content-encoding` header; `None` for an encoding that is not
    /// decoded here. That includes `identity`, which needs none, and several encodings in a row.
    #[must_use]
    pub fn for_encoding(encoding: &str) -> Option<Self> {
        let inner = match encoding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Inner::Gzip(MultiGzDecoder::new(Sink::default())),
            "deflate" => Inner::Deflate(Vec::new()),
            "zstd" => Inner::Zstd(Box::default()),
            _ => return None,
        };
        Some(Self { inner, taken: 0, given: 0 })
    }

    /// Takes the next bytes, split anywhere, and gives what they unfold into so far.
    ///
    /// # Errors
    /// Where the bytes are not valid, or unfold too far. Nothing more is to be fed then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Bytes, DecodeError> {
        let out = self.inner.feed(bytes)?;
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        self.given = self.given.saturating_add(out.len() as u64);
        if self.given > self.taken.saturating_mul(MAX_RATIO).saturating_add(ALLOWANCE) {
            return Err(DecodeError::TooLarge);
        }
        Ok(out.into())
    }
}

impl Inner {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Gzip(decoder) => {
                let done = decoder.write_all(bytes).and_then(|()| decoder.flush());
                decoder.get_mut().take(done)
            }
            Self::Zlib(decoder) => {
                let done = decoder.write_all(bytes).and_then(|()| decoder.flush());
                decoder.get_mut().take(done)
            }
            Self::Raw(decoder) => {
                let done = decoder.write_all(bytes).and_then(|()| decoder.flush());
                decoder.get_mut().take(done)
            }
            Self::Deflate(held) => {
                held.extend_from_slice(bytes);
                let [first, second, ..] = held[..] else { return Ok(Vec::new()) };
                let held = std::mem::take(held);
                // The header of zlib: method 8, and a check that makes both bytes divide by 31.
                let zlib = first & 15 == 8 && u16::from_be_bytes([first, second]) % 31 == 0;
                *self = if zlib {
                    Self::Zlib(ZlibDecoder::new(Sink::default()))
                } else {
                    Self::Raw(DeflateDecoder::new(Sink::default()))
                };
                self.feed(&held)
            }
            Self::Zstd(frames) => {
                let mut sink = Sink::default();
                let done = frames.feed(bytes, &mut sink);
                sink.take(done)
            }
        }
    }
}

impl Sink {
    /// What came out; an error where there was one.
    fn take(&mut self, done: io::Result<()>) -> Result<Vec<u8>, DecodeError> {
        match done {
            Ok(()) => Ok(std::mem::take(&mut self.bytes)),
            Err(_) if self.full => Err(DecodeError::TooLarge),
            Err(_) => Err(DecodeError::Invalid),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_STEP {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { inner: _, taken, given } = self;
        f.debug_struct("Decoder").field("taken", taken).field("given", given).finish()
    }
}

#[cfg(test)]
mod tests;
