//! Fuzzes `fuzz/properties/sse.rs`.
#![no_main]

#[path = "../properties/splits.rs"]
mod splits;
#[path = "../properties/sse.rs"]
mod sse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sse::check(bytes));
