//! Fuzzes `fuzz/properties/envelope.rs`.
#![no_main]

#[path = "../properties/envelope.rs"]
mod envelope;
#[path = "../properties/tree.rs"]
mod tree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| envelope::check(bytes));
