//! Collects what of a chunk goes on to the client, and copies only where something was left out.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The pieces of one chunk that go on, in order.
#[derive(Debug)]
pub(super) struct Output {
    /// The chunk that most pieces are slices of.
    chunk: Bytes,
    /// The run of its bytes that was taken last; not yet copied.
    run: Range<usize>,
    /// What came before that run.
    copied: BytesMut,
}

impl Output {
    /// Nothing yet, of `chunk`.
    pub(super) fn new(chunk: Bytes) -> Self {
        Self { chunk, run: 0..0, copied: BytesMut::new() }
    }

    /// Adds a piece: a slice of the chunk, or any other bytes.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        match self.place(piece) {
            Some(place) if place.start == self.run.end => self.run.end = place.end,
            Some(place) => {
                self.copy_run();
                self.run = place;
            }
            None => {
                self.copy_run();
                self.copied.extend_from_slice(piece);
            }
        }
    }

    /// All pieces in one; a slice of the chunk where they stand there side by side.
    pub(super) fn finish(mut self) -> Bytes {
        if self.copied.is_empty() {
            return self.chunk.slice(self.run);
        }
        self.copy_run();
        self.copied.freeze()
    }

    /// Where `piece` stands in the chunk, if it is a part of it.
    fn place(&self, piece: &[u8]) -> Option<Range<usize>> {
        let start = (piece.as_ptr() as usize).checked_sub(self.chunk.as_ptr() as usize)?;
        let end = start.checked_add(piece.len())?;
        (end <= self.chunk.len()).then_some(start..end)
    }

    fn copy_run(&mut self) {
        let run = std::mem::replace(&mut self.run, 0..0);
        if !run.is_empty() {
            if self.copied.is_empty() {
                self.copied.reserve(self.chunk.len());
            }
            self.copied.extend_from_slice(self.chunk.get(run).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_pieces_are_a_slice_of_the_chunk() {
        let chunk = Bytes::from_static(b"abcdef");
        let mut output = Output::new(chunk.clone());
        output.push(&chunk[1..3]);
        output.push(&chunk[3..5]);
        let bytes = output.finish();
        assert_eq!((&bytes[..], bytes.as_ptr()), (&b"bcde"[..], chunk[1..].as_ptr()));
    }

    #[test]
    fn gaps_and_foreign_pieces_keep_their_order() {
        let chunk = Bytes::from_static(b"abcdef");
        let mut output = Output::new(chunk.clone());
        for piece in [b"xy", &chunk[0..2], b"", &chunk[3..4], b"z", &chunk[4..6]] {
            output.push(piece);
        }
        assert_eq!(&output.finish()[..], b"xyabdzef");
        assert!(Output::new(chunk).finish().is_empty());
    }
}
