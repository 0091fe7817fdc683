//! Fuzzes `fuzz/properties/answer.rs`. What it looks at is private to `upstream`, so the two files
//! are compiled here a second time.
#![no_main]

// As the two files name it.
use flotilla::domain;

#[expect(dead_code, reason = "a node needs more of them than is fuzzed")]
#[path = "../../src/upstream"]
mod upstream {
    #[path = "../../fuzz/properties/answer.rs"]
    pub(crate) mod answer;
    mod framing;
    mod head;
    #[path = "../../fuzz/properties/splits.rs"]
    mod splits;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| upstream::answer::check(bytes));
