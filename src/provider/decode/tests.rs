use flate2::Compression;
use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn decode<'a>(
    encoding: &str,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::for_encoding(encoding).expect("a known encoding");
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&decoder.feed(chunk)?);
    }
    Ok(out)
}

type Encode = fn(&[u8]) -> Vec<u8>;
const ALL: [(&str, Encode); 4] =
    [("gzip", gzip), ("deflate", zlib), ("deflate", raw), ("zstd", zstd)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    // T18
    #[test]
    fn any_splits_unfold_into_the_same_bytes(
        text in "([a-zß ]{0,9}data: \\{){0,60}",
        repeat in 1_usize..40,
        size in 1_usize..2000,
        kind in 0..ALL.len(),
    ) {
        let text = text.repeat(repeat).into_bytes();
        let (encoding, encode) = ALL[kind];
        let bytes = encode(&text);
        prop_assert_eq!(decode(encoding, bytes.chunks(size)), Ok(text.clone()));
        prop_assert_eq!(decode(encoding, bytes.chunks(1)), Ok(text));
    }

    #[test]
    fn arbitrary_bytes_never_do_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at: prop::sample::Index,
        flip: u8,
        kind in 0..ALL.len(),
    ) {
        let (encoding, encode) = ALL[kind];
        let outcome = decode(encoding, [&bytes[..]]);
        prop_assert!(outcome.is_ok() || outcome.is_err());
        let mut broken = encode(&bytes);
        let at = at.index(broken.len());
        broken[at] ^= flip;
        let outcome = decode(encoding, broken.chunks(7));
        prop_assert!(outcome.is_ok() || outcome.is_err());
    }
}

#[test]
fn text_is_out_before_the_end_came() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(b"data: a\n\n").expect("memory");
    encoder.flush().expect("memory");
    let bytes = encoder.get_ref().clone();
    assert_eq!(decode("gzip", [&bytes[..]]), Ok(b"data: a\n\n".to_vec()));
}

#[test]
fn rows_of_frames_and_skipped_ones_are_read() {
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decode("x-gzip", two.chunks(3)), Ok(b"one two".to_vec()));
    let skip = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    let empty = b"\x50\x2a\x4d\x18\x00\x00\x00\x00".to_vec();
    let row = [skip, zstd(b"one "), empty, zstd(b"two")].concat();
    assert_eq!(decode("zstd", [&row[..]]), Ok(b"one two".to_vec()));
    assert_eq!(decode("ZSTD", row.chunks(1)), Ok(b"one two".to_vec()));
}

#[test]
fn a_bomb_is_refused() {
    let zeros = vec![0; 20 << 20];
    for (encoding, encode) in ALL {
        let bomb = encode(&zeros);
        assert!(bomb.len() < 100_000, "{encoding} is a bomb");
        assert_eq!(decode(encoding, [&bomb[..]]), Err(DecodeError::TooLarge), "{encoding}");
        assert_eq!(decode(encoding, bomb.chunks(100)), Err(DecodeError::TooLarge), "{encoding}");
    }
}

#[test]
fn a_huge_window_is_refused() {
    // A frame that wants a window of 1 GiB.
    let frame = b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00";
    assert_eq!(decode("zstd", [&frame[..]]), Err(DecodeError::Invalid));
}

#[test]
fn what_is_not_valid_is_refused() {
    for (encoding, _) in ALL {
        assert_eq!(decode(encoding, [&[0xFF; 16][..]]), Err(DecodeError::Invalid), "{encoding}");
    }
}

#[test]
fn other_encodings_are_left_alone() {
    for encoding in ["br", "identity", "", "gzip, zstd", "compress"] {
        assert!(Decoder::for_encoding(encoding).is_none(), "{encoding}");
    }
}
