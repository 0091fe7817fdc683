//! The judge of limits: what was seen from outside, and what can be proved from it.
//!
//! It shares no code with the product: neither its arithmetic, nor its words, nor its clock. Its
//! own tests are in `judge/tests.rs`: histories of a correct limiter pass, those of broken ones
//! are caught.

pub(crate) mod check;
pub(crate) mod dice;
pub(crate) mod facts;
pub(crate) mod history;
mod permits;
pub(crate) mod reference;
mod refusals;
mod settled;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod tests;
mod windows;
