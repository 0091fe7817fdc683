//! Slips and nonsense: a letter changed in every key, and documents that chance has written.

use flotilla::cli;
use flotilla::config::{Document, Env, Format, compile};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::scratch::Scratch;

const REFERENCE: &str = include_str!("../../../examples/flotilla.yaml");
const EVERYTHING: &str = include_str!("../../configs/invalid/not_served_yet.json");

/// Start and end of every key in the text of a YAML document.
fn keys(text: &str) -> Vec<(usize, usize)> {
    let mut keys = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = line.len() - line.trim_start_matches([' ', '-']).len();
        let rest = &line[start..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        if let Some(end) = end.filter(|end| *end > 0 && rest[*end..].starts_with(':')) {
            keys.push((offset + start, offset + start + end));
        }
        offset += line.len();
    }
    keys
}

// T12: a letter changed in any key of the reference document is a fault that names it, exit 64.
#[test]
fn a_slip_in_any_key_is_named_and_refused() {
    let scratch = Scratch::new();
    let keys = keys(REFERENCE);
    assert!(keys.len() > 90, "the reference covers everything");
    for (start, end) in keys {
        for at in start..end {
            let mut text = REFERENCE.as_bytes().to_vec();
            text[at] = if text[at] == b'q' { b'j' } else { b'q' };
            let file = scratch.write("doc.yaml", &text);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = cli::check(&file, false, &Env::default(), &mut out, &mut err);
            let err = String::from_utf8(err).expect("messages are text");
            let (before, after) =
                (&REFERENCE[start..end], String::from_utf8_lossy(&text[start..end]).into_owned());
            assert_eq!(code.ok(), Some(64), "{before} as {after}: {err}");
            let named = |name: &str| err.contains(&format!("`{name}`"));
            assert!(named(before) || named(&after), "{before} as {after}: {err}");
        }
    }
}

/// Any value that a document could hold in the wrong place.
fn stray() -> impl Strategy<Value = Value> {
    select(vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(4_294_967_296_u64),
        json!(""),
        json!("x"),
        json!("1s"),
        json!("${A}"),
        json!("5 USD"),
        json!("281474977 USD"),
        json!(281_474_976_710_656_u64),
        json!(1_000_000_000_000_u64),
        json!("32d"),
        json!("token_bucket"),
        json!("concurrency"),
        json!("cost"),
        json!("key"),
        json!(["key", "user"]),
        json!({"tier": "premium", "per": ["ip"]}),
        json!("inf USD"),
        json!("weighted"),
        json!("99999999999d"),
        json!([]),
        json!(["t"]),
        json!([["t"]]),
        json!({}),
        json!({"t": "t"}),
        json!({"tiers": [["t"]]}),
    ])
}

/// Every place in a document.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{here}/{index}"), all);
            }
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| places(item, &format!("{here}/{name}"), all));
        }
        _ => {}
    }
}

fn survives(format: Format, bytes: &[u8]) {
    match Document::parse("doc", format, bytes) {
        Ok(document) => drop(compile(&document, &Env::default(), 1)),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(!fault.what.contains("please report"), "schema and types disagree");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            survives(format, &bytes);
        }
    }

    #[test]
    fn random_text_of_document_letters_never_panics_the_loader(
        text in "([\\[\\]{}:,&*!|>'\"#%@?~. \\n\\t-]|pools|tiers|a|1){0,60}",
    ) {
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            survives(format, text.as_bytes());
        }
    }

    #[test]
    fn a_damaged_reference_never_panics_the_loader(
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), "[\\PC\\n\\t]{0,4}"), 1..6),
    ) {
        let toml = include_str!("../../configs/valid/reference.toml");
        for (format, text) in
            [(Format::Yaml, REFERENCE), (Format::Json, EVERYTHING), (Format::Toml, toml)]
        {
            let mut text: Vec<char> = text.chars().collect();
            for (start, length, new) in &edits {
                let start = start.index(text.len());
                let end = (start + length.index(8)).min(text.len());
                text.splice(start..end, new.chars());
            }
            survives(format, text.into_iter().collect::<String>().as_bytes());
        }
    }

    #[test]
    fn what_the_schema_lets_through_fits_the_types(
        edits in proptest::collection::vec((any::<Index>(), stray()), 1..4),
    ) {
        let mut document: Value = serde_json::from_str(EVERYTHING).expect("it is JSON");
        for (at, stray) in edits {
            let mut all = Vec::new();
            places(&document, "", &mut all);
            if let Some(place) = document.pointer_mut(&all[at.index(all.len())]) {
                *place = stray;
            }
        }
        survives(Format::Json, document.to_string().as_bytes());
    }

    // The reference has no fault to begin with, so that many of these are compiled.
    #[test]
    fn what_the_check_lets_through_compiles(
        edits in proptest::collection::vec((any::<Index>(), stray()), 1..3),
    ) {
        let reference = include_str!("../../configs/valid/reference.json");
        let mut document: Value = serde_json::from_str(reference).expect("it is JSON");
        for (at, stray) in edits {
            let mut all = Vec::new();
            places(&document, "", &mut all);
            all.retain(|place| place.contains("limit") || place.contains("budget"));
            if let Some(place) = all.get(at.index(all.len().max(1))).cloned()
                && let Some(place) = document.pointer_mut(&place)
            {
                *place = stray;
            }
        }
        survives(Format::Json, document.to_string().as_bytes());
    }
}
