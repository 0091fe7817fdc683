//! Where the body of a message ends: of an answer here, of a request in the listeners.
//!
//! The connection follows the framing itself instead of trusting the codec behind it: only so is
//! a close known to be an end or a break, are surplus bytes seen, and is a connection given back
//! exactly when its answer is complete. It is a strict subset of what the codec accepts, so the
//! two cannot disagree on a body that both accept.

/// The framing of an answer is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks; `u64` is the size of the chunk at hand as far as known.
    Chunked(Chunk, u64),
    /// Whatever comes until the connection is closed.
    UntilClose,
}

/// What the next byte of a chunked body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// The first digit of a size: there must be one.
    Size,
    /// More digits, or what ends them.
    SizeRest,
    /// White space between a size and what ends it.
    SizeSpace,
    /// What follows a size up to its line's end; nobody reads it.
    Extension,
    /// The LF of a size line.
    SizeLf,
    /// Data.
    Data,
    /// The CR after data.
    DataCr,
    /// The LF after data.
    DataLf,
    /// The first byte of a line after the last chunk.
    Trailer,
    /// The rest of a trailer line.
    TrailerRest,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF of the empty line that ends all.
    EndLf,
    /// Nothing: the body is complete.
    End,
    /// Nothing: what came is no chunk.
    Malformed,
}

impl Body {
    /// The body that starts with a chunk.
    pub(crate) const CHUNKED: Self = Self::Chunked(Chunk::Size, 0);

    /// True once nothing more belongs to the body.
    pub(crate) fn is_complete(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End, _))
    }

    /// True once something came that cannot be part of the body.
    pub(crate) fn is_malformed(self) -> bool {
        matches!(self, Self::Chunked(Chunk::Malformed, _))
    }

    /// Takes in what came and says how much of it belongs to the body. What comes before a
    /// malformed byte does, so that nothing good is lost with it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::UntilClose => bytes.len(),
            Self::Length(left) => take(left, bytes.len()),
            Self::Chunked(chunk, size) => feed_chunks(chunk, size, bytes),
        }
    }

    /// Takes in what came up to the end of the next data and says how many bytes of framing and
    /// how many of data behind them these are. Without data, there is none in what is left either.
    pub(super) fn part(&mut self, bytes: &[u8]) -> (usize, usize) {
        match self {
            Self::UntilClose => (0, bytes.len()),
            Self::Length(left) => (0, take(left, bytes.len())),
            Self::Chunked(chunk, size) => chunk_part(chunk, size, bytes),
        }
    }
}

/// Takes up to `len` off `left` and says how much it was.
fn take(left: &mut u64, len: usize) -> usize {
    let taken = usize::try_from(*left).map_or(len, |left| left.min(len));
    *left -= taken as u64;
    taken
}

fn feed_chunks(chunk: &mut Chunk, size: &mut u64, bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let (framing, data) = chunk_part(chunk, size, bytes.get(at..).unwrap_or_default());
        at += framing + data;
        if data == 0 {
            return at;
        }
    }
}

fn chunk_part(chunk: &mut Chunk, size: &mut u64, bytes: &[u8]) -> (usize, usize) {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match *chunk {
            Chunk::Data => {
                let data = take(size, bytes.len() - at);
                if *size == 0 {
                    *chunk = Chunk::DataCr;
                }
                return (at, data);
            }
            Chunk::End => break,
            _ => *chunk = next(*chunk, size, byte).unwrap_or(Chunk::Malformed),
        }
        if *chunk == Chunk::Malformed {
            break;
        }
        at += 1;
    }
    (at, 0)
}

/// The state after `byte`, which is not data.
fn next(chunk: Chunk, size: &mut u64, byte: u8) -> Option<Chunk> {
    Some(match (chunk, byte) {
        (Chunk::Size | Chunk::SizeRest, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = char::from(byte).to_digit(16)?;
            let high = if chunk == Chunk::Size { 0 } else { *size };
            *size = high.checked_mul(16)? + u64::from(digit);
            Chunk::SizeRest
        }
        (Chunk::SizeRest | Chunk::SizeSpace, b' ' | b'\t') => Chunk::SizeSpace,
        (Chunk::SizeRest | Chunk::SizeSpace, b';') => Chunk::Extension,
        (Chunk::SizeRest | Chunk::SizeSpace | Chunk::Extension, b'\r') => Chunk::SizeLf,
        (Chunk::Extension, b'\t' | 0x20..=0x7e | 0x80..) => Chunk::Extension,
        (Chunk::SizeLf, b'\n') if *size == 0 => Chunk::Trailer,
        (Chunk::SizeLf, b'\n') => Chunk::Data,
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size,
        (Chunk::Trailer, b'\r') => Chunk::EndLf,
        (Chunk::EndLf, b'\n') => Chunk::End,
        (Chunk::TrailerRest, b'\r') => Chunk::TrailerLf,
        (Chunk::Trailer | Chunk::TrailerRest, other) if other != b'\n' => Chunk::TrailerRest,
        (Chunk::TrailerLf, b'\n') => Chunk::Trailer,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"5\r\nhello\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";

    /// Feeds the bytes in two parts and says how many belong to the body.
    fn feed(bytes: &[u8], cut: usize) -> (usize, Body) {
        let mut body = Body::CHUNKED;
        let (first, second) = bytes.split_at(cut);
        let taken = body.feed(first) + body.feed(second);
        (taken, body)
    }

    #[test]
    fn a_chunked_body_ends_at_its_last_byte_wherever_it_is_cut() {
        for cut in 0..=STREAM.len() {
            let (taken, body) = feed(STREAM, cut);
            assert!(taken == STREAM.len() && body.is_complete(), "cut at {cut}");
        }
        for end in 0..STREAM.len() {
            let (taken, body) = feed(&STREAM[..end], end / 2);
            assert!(taken == end && !body.is_complete(), "ends at {end}");
        }
    }

    #[test]
    fn data_is_told_from_framing_wherever_it_is_cut() {
        for cut in 0..=STREAM.len() {
            let (mut body, mut data) = (Body::CHUNKED, Vec::new());
            let (first, second) = STREAM.split_at(cut);
            for mut bytes in [first, second] {
                loop {
                    let (framing, len) = body.part(bytes);
                    data.extend_from_slice(&bytes[framing..framing + len]);
                    bytes = &bytes[framing + len..];
                    if len == 0 {
                        break;
                    }
                }
                assert!(bytes.is_empty(), "cut at {cut}");
            }
            assert!(body.is_complete() && data == b"hello0123456789", "cut at {cut}");
        }
    }

    #[test]
    fn bytes_behind_the_end_do_not_belong_to_the_body() {
        let surplus = [STREAM, b"HTTP/1.1 200 OK\r\n"].concat();
        let (taken, body) = feed(&surplus, 7);
        assert!(taken == STREAM.len() && body.is_complete());
        let mut body = Body::Length(3);
        assert_eq!(body.feed(b"abcdef"), 3);
        assert!(body.is_complete());
        let mut body = Body::UntilClose;
        assert_eq!(body.feed(b"abcdef"), 6);
        assert!(!body.is_complete());
    }

    #[test]
    fn what_is_no_chunk_is_malformed_from_its_first_bad_byte_on() {
        for (good, bad) in [
            ("", "\r\n"),
            ("", "x\r\n"),
            ("5", "\nhello"),
            ("5\r\nhello", "X"),
            ("5\r\nhello\r", "X"),
            ("5\r\nhello", "\n"),
            ("", "+5\r\n"),
            ("", "-1\r\n"),
            ("0", "x5\r\n"),
            ("1111111111111111", "1\r\n"),
            ("5;", "\n\r\n"),
            ("5 \t", "5\r\n"),
            ("0\r\n", "\n"),
            ("0\r\n\r", "X"),
        ] {
            let bytes = [good, bad].concat();
            let (taken, body) = feed(bytes.as_bytes(), 0);
            assert!(taken == good.len() && body.is_malformed(), "{bytes:?}");
            let (taken, body) = feed(bytes.as_bytes(), good.len());
            assert!(taken == good.len() && body.is_malformed(), "{bytes:?}");
        }
    }
}
