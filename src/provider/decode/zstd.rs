//! Zstandard in pieces of any size.
//!
//! The decoder underneath wants whole blocks, and decodes all that it is given before anything can
//! be taken out. So the borders of frames and blocks are found here, and blocks are handed over one
//! by one: at most 128 KiB come out of each, whatever the input.

use std::io::{self, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window, as HTTP allows it (RFC 9659).
const MAX_WINDOW: u64 = 8 << 20;

/// The largest block of the format.
const MAX_BLOCK: usize = 128 << 10;

/// What a frame of data begins with, and one to skip but for its last four bits.
const DATA: u32 = 0xFD2F_B528;
const SKIPPED: u32 = 0x184D_2A50;

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A frame of data or one to skip.
    Frame,
    /// A block of a frame.
    Block { checksum: bool },
    /// That many bytes that say nothing.
    Skip { left: u32 },
}

/// The decoder of a row of frames.
pub(super) struct Frames {
    decoder: FrameDecoder,
    held: Vec<u8>,
    at: Place,
}

impl Default for Frames {
    fn default() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self { decoder, held: Vec::new(), at: Place::Frame }
    }
}

impl Frames {
    /// Takes bytes and writes what they unfold into. Up to a window of it comes with the end of
    /// the frame only, because the decoder may still refer to it.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some(len) = self.step(rest, out)? {
            rest = rest.get(len..).unwrap_or_default();
        }
        self.held = rest.to_vec();
        Ok(())
    }

    /// Takes the next part off the front; gives its length, or `None` where more is needed.
    fn step(&mut self, rest: &[u8], out: &mut impl Write) -> io::Result<Option<usize>> {
        match self.at {
            Place::Frame => self.frame(rest),
            Place::Block { checksum } => self.block(rest, checksum, out),
            Place::Skip { left: 0 } => {
                self.at = Place::Frame;
                Ok(Some(0))
            }
            Place::Skip { left } => {
                let len = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let passed = u32::try_from(len).unwrap_or(left);
                self.at = Place::Skip { left: left - passed };
                Ok((len > 0).then_some(len))
            }
        }
    }

    fn frame(&mut self, rest: &[u8]) -> io::Result<Option<usize>> {
        let Some((&magic, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let magic = u32::from_le_bytes(magic);
        if magic & 0xFFFF_FFF0 == SKIPPED {
            let Some(&left) = after.first_chunk::<4>() else { return Ok(None) };
            self.at = Place::Skip { left: u32::from_le_bytes(left) };
            return Ok(Some(8));
        }
        if magic != DATA {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(&descriptor) = after.first() else { return Ok(None) };
        let single = descriptor & 0x20 != 0;
        let window = usize::from(!single);
        let dictionary = match descriptor & 3 {
            3 => 4,
            len => usize::from(len),
        };
        let size = match descriptor >> 6 {
            0 => usize::from(single),
            power => 1 << power,
        };
        let len = 5 + window + dictionary + size;
        let Some(header) = rest.get(..len) else { return Ok(None) };
        self.decoder.reset(header).map_err(io::Error::other)?;
        self.at = Place::Block { checksum: descriptor & 4 != 0 };
        Ok(Some(len))
    }

    fn block(
        &mut self,
        rest: &[u8],
        checksum: bool,
        out: &mut impl Write,
    ) -> io::Result<Option<usize>> {
        let Some(&[a, b, c]) = rest.first_chunk::<3>() else { return Ok(None) };
        let header = u32::from_le_bytes([a, b, c, 0]);
        let last = header & 1 == 1;
        let size = usize::try_from(header >> 3).unwrap_or(usize::MAX);
        if size > MAX_BLOCK {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // A run of one byte is stored as that byte.
        let content = if header >> 1 & 3 == 1 { 1 } else { size };
        let len = 3 + content + if last && checksum { 4 } else { 0 };
        let Some(block) = rest.get(..len) else { return Ok(None) };
        self.decoder
            .decode_blocks(block, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(io::Error::other)?;
        self.decoder.collect_to_writer(&mut *out)?;
        if last {
            self.at = Place::Frame;
        }
        Ok(Some(len))
    }
}
