//! Fuzzes `fuzz/properties/splice.rs`.
#![no_main]

#[path = "../properties/splice.rs"]
mod splice;
#[path = "../properties/tree.rs"]
mod tree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splice::check(bytes));
