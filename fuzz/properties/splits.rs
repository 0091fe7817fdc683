//! The ways in which bytes may be cut on their way here.
//!
//! They are made from the bytes themselves, so that an input is nothing but what it looks like: a
//! recorded answer is a seed as it is.

/// `bytes` in pieces: each byte alone, and cut at places that chance chose. Of many bytes, those at
/// both ends are alone and what is between them is cut less often: what keeps all that came and looks
/// at it again with every piece would else take as long as the square of the length.
pub(crate) fn splits(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let edge = EDGE.min(bytes.len() / 2);
    let (first, rest) = bytes.split_at(edge);
    let (middle, last) = rest.split_at(rest.len() - edge);
    let between = middle.chunks(1 + middle.len() / (2 * EDGE));
    let single = first.chunks(1).chain(between).chain(last.chunks(1)).collect();

    let unit = 1 + bytes.len() as u64 / 4096;
    let mut dice = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let random = (1..4_u64).map(move |longest| {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = 1 + (dice >> 33) % (longest * longest * 16 * unit);
            let (piece, after) = rest.split_at(rest.len().min(len as usize));
            pieces.push(piece);
            rest = after;
        }
        pieces
    });
    std::iter::once(single).chain(random)
}

/// How many bytes at each end are alone, however many there are.
const EDGE: usize = 64;
