//! The properties of the fuzz targets on stable: for every committed seed, and for seeds that
//! chance has changed. What fuzzing finds becomes a seed, and so a test. The fifth property, that
//! of answers' heads, is about private code and tested there (`src/upstream/properties.rs`).

#[path = "../../fuzz/properties/document.rs"]
mod document;
#[path = "../../fuzz/properties/envelope.rs"]
mod envelope;
#[path = "../../fuzz/properties/seeds.rs"]
mod seeds;
#[path = "../../fuzz/properties/splice.rs"]
mod splice;
#[path = "../../fuzz/properties/splits.rs"]
mod splits;
#[path = "../../fuzz/properties/sse.rs"]
mod sse;
#[path = "../../fuzz/properties/tree.rs"]
mod tree;

use bytes::Bytes;
use flotilla::provider::{MAX_EVENT, ScanError, Scanner};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use seeds::seeds;

fn sse_seeds() -> Vec<Vec<u8>> {
    seeds(&["fuzz/seeds/sse", "tests/fixtures/openai"])
}

fn document_seeds() -> Vec<Vec<u8>> {
    seeds(&["fuzz/seeds/document", "examples", "tests/configs/valid", "tests/configs/invalid"])
}

fn bodies() -> Vec<Vec<u8>> {
    seeds(&["fuzz/seeds/envelope", "fuzz/seeds/splice"])
}

/// What means something to one reader or another.
const WORDS: [&str; 18] = [
    "{",
    "}",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "\\u00",
    "\r",
    "\n",
    "\n\n",
    "data:",
    "*a",
    "{\"n\":2,",
    "\"user\":\"u\",",
    "\"Max_tokens\":1,",
    "\"max_completion_tokens\":1,",
    "\"stream_options\":{},",
];

/// A seed in which some stretches have become others: other bytes, or stretches of the seed.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let new = prop_oneof![
        select(WORDS.as_slice()).prop_map(|word| Some(word.as_bytes().to_vec())),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Some),
        Just(None),
    ];
    let edit = (any::<Index>(), 0_usize..12, new);
    (select(seeds), prop::collection::vec(edit, 0..5)).prop_map(|(mut bytes, edits)| {
        for (at, len, new) in edits {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + len);
            let new = new.unwrap_or_else(|| bytes[at..end].repeat(2));
            bytes.splice(at..end, new);
        }
        bytes
    })
}

#[test]
fn every_seed_has_its_property() {
    sse_seeds().iter().for_each(|bytes| sse::check(bytes));
    document_seeds().iter().for_each(|bytes| document::check(bytes));
    for body in bodies() {
        envelope::check(&body);
        splice::check(&body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_stream_gives_the_same_events(bytes in changed(sse_seeds())) {
        sse::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn the_envelope_is_what_another_reader_finds(bytes in changed(bodies())) {
        envelope::check(&bytes);
    }

    #[test]
    fn a_splice_changes_two_fields_and_no_other_byte(bytes in changed(bodies())) {
        splice::check(&bytes);
    }

    #[test]
    fn a_changed_document_is_loaded_or_explained(bytes in changed(document_seeds())) {
        document::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn an_event_that_never_ends_is_refused_at_the_bound(
        line in select(vec!["data: x\n", ": comment\r\n", "x", "data\r", "\u{e9}:"]),
        len in 1_usize..(1 << 20),
    ) {
        let piece: Bytes = line.bytes().cycle().take(len).collect();
        let mut scanner = Scanner::new();
        let mut fed = 0;
        let refused = loop {
            scanner.feed(piece.clone());
            fed += piece.len();
            match scanner.next_event() {
                Ok(None) => prop_assert!(fed <= MAX_EVENT, "{fed} bytes are held"),
                Ok(Some(_)) => prop_assert!(false, "there is no blank line"),
                Err(ScanError) => break fed,
            }
        };
        prop_assert!(refused > MAX_EVENT);
    }
}
