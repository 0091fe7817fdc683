//! What holds for the loader of fleet documents, whatever it is given.

use flotilla::config::{Document, Env, Format, compile};

/// In no format does it panic, and what it refuses it explains. That it takes bounded time is what
/// the fuzzer's own clock looks after.
pub(crate) fn check(bytes: &[u8]) {
    // A name of the document may be quoted in words about it.
    let said = memchr::memmem::find(bytes, REPORT.as_bytes()).is_some();
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        match Document::parse("doc", format, bytes) {
            Ok(document) => drop(compile(&document, &Env::default(), 1)),
            Err(faults) => {
                assert!(!faults.is_empty(), "{format:?}: refused without a word");
                for fault in faults {
                    let strange = fault.what.contains(REPORT);
                    assert!(said || !strange, "schema and types disagree: {}", fault.what);
                }
            }
        }
    }
}

/// What is said where the types refuse what the schema accepted.
const REPORT: &str = "please report";
