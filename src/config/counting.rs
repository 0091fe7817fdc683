//! How a limit counts: from the document's words to the numbers of the state machines.
//!
//! The check of a document and its compilation ask the same function here, so what has passed the
//! one cannot fail in the other.
//!
//! The bounds are those of the state machines (`policy::limit`), which count in Lua's doubles: an
//! amount takes 6 bytes of a ring, and no sum or product passes 2^53, beyond which doubles skip
//! numbers.

use std::time::Duration;

use super::document::{Algorithm as Word, Amount, Counting, Metric, Money, Span, TargetLimit};
use super::fault::shown;
use crate::domain::{UnitError, parse_fixed};
use crate::policy::limit::Algorithm;

/// Amounts are below it.
const AMOUNTS: u64 = 1 << 48;

/// A bucket's level is an amount times its window in milliseconds, and a demand is added to it, so
/// that each may be half of what a double holds exactly.
const LEVELS: u64 = 1 << 52;

/// A window's width: its sixtieth is still a few milliseconds, and its state outlives a month.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(32 * 86_400);

/// A window is counted in about so many slots: what frees up does so at most 1/60 late.
const SLOTS: u64 = 60;

/// USD per million tokens. Beyond it somebody gave the price of something else.
const DEAREST: u64 = 100_000;

/// Decimals of a price that are kept: USD per million tokens in millionths is pico-USD per token.
const PRICE_PLACES: u32 = 6;

/// How a limit counts, and how much it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) algorithm: Algorithm,
    pub(super) limit: u64,
}

/// What is wrong with a field of a limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The field; none means the limit itself.
    pub(super) field: Option<&'static str>,
    pub(super) what: String,
    pub(super) hint: Option<&'static str>,
}

impl Flaw {
    fn new(field: &'static str, what: impl Into<String>, hint: &'static str) -> Self {
        Self { field: Some(field), what: what.into(), hint: Some(hint) }
    }
}

/// How `counting` counts.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn counted(counting: &Counting) -> Result<Counted, Vec<Flaw>> {
    let mut flaws = Vec::new();
    let limit = amount("limit", counting.metric, counting.limit, &mut flaws);
    let burst = counting.burst.map(|burst| amount("burst", counting.metric, burst, &mut flaws));
    let algorithm = if counting.metric == Metric::Concurrency {
        permits(counting, &mut flaws);
        Algorithm::Permits
    } else {
        let window_ms = window_ms(counting.window, &mut flaws);
        match counting.algorithm.unwrap_or(Word::SlidingWindow) {
            Word::SlidingWindow => {
                if burst.is_some() {
                    let what = "only a token_bucket has a burst";
                    flaws.push(Flaw::new("burst", what, "add algorithm: token_bucket"));
                }
                window(window_ms)
            }
            Word::TokenBucket => bucket(limit, burst.unwrap_or(limit), window_ms, &mut flaws),
        }
    };
    if flaws.is_empty() { Ok(Counted { algorithm, limit }) } else { Err(flaws) }
}

/// An amount of what is counted; 0, with a flaw, where it is none.
fn amount(field: &'static str, metric: Metric, amount: Amount, flaws: &mut Vec<Flaw>) -> u64 {
    let flaw = match (metric == Metric::Cost, amount) {
        (true, Amount::Money(Money(amount))) | (false, Amount::Count(amount)) => {
            if amount < AMOUNTS {
                return amount;
            }
            let what = "too large to be counted";
            let most = "amounts are below 2^48: 281474976710656, or 281474976.710656 USD";
            Flaw::new(field, what, most)
        }
        (true, Amount::Count(_)) => {
            let what = "a limit of cost is an amount of money";
            Flaw::new(field, what, "write for instance \"100 USD\"")
        }
        (false, Amount::Money(_)) => {
            let what = "only a limit of cost is an amount of money";
            Flaw::new(field, what, "write a whole number")
        }
    };
    flaws.push(flaw);
    0
}

/// What `concurrency` has no use for.
fn permits(counting: &Counting, flaws: &mut Vec<Flaw>) {
    let given = [
        ("algorithm", counting.algorithm.is_some()),
        ("burst", counting.burst.is_some()),
        ("window", counting.window.is_some()),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        let what = format!("concurrency has no {field}");
        flaws.push(Flaw::new(field, what, "leave it out"));
    }
}

fn window_ms(window: Option<Span>, flaws: &mut Vec<Flaw>) -> u64 {
    let Some(Span(window)) = window else {
        let what = "missing field `window`, within how long".to_owned();
        flaws.push(Flaw { field: None, what, hint: Some("write for instance window: 1m") });
        return 0;
    };
    if !(SHORTEST..=LONGEST).contains(&window) {
        flaws.push(Flaw::new("window", "not from 100ms to 32d", "choose another window"));
    }
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}

/// The slots of a window; together they are at least as long.
fn window(window_ms: u64) -> Algorithm {
    let slot_ms = window_ms.div_ceil(SLOTS).max(1);
    let slots = u32::try_from(window_ms.div_ceil(slot_ms)).unwrap_or(u32::MAX);
    Algorithm::Window { slot_ms, slots }
}

fn bucket(limit: u64, burst: u64, window_ms: u64, flaws: &mut Vec<Flaw>) -> Algorithm {
    for (field, amount) in [("limit", limit), ("burst", burst)] {
        if amount.saturating_mul(window_ms) >= LEVELS {
            let what = "too large for a token_bucket with this window";
            let hint = "take a shorter window, or algorithm: sliding_window";
            flaws.push(Flaw::new(field, what, hint));
            break;
        }
    }
    Algorithm::Bucket { window_ms, burst }
}

/// The name of a target's limit that has none of its own: the same however the window is written.
pub(super) fn name_of(target: &str, limit: &TargetLimit) -> String {
    let metric = match limit.metric {
        Metric::Requests => "requests",
        Metric::Tokens => "tokens",
        Metric::InputTokens => "input_tokens",
        Metric::OutputTokens => "output_tokens",
        Metric::Cost => "cost",
        Metric::Concurrency => "concurrency",
    };
    match (&limit.name, limit.window) {
        (Some(name), _) => name.clone(),
        (None, None) => format!("{target}/{metric}"),
        (None, Some(Span(window))) => format!("{target}/{metric}/{}", shortest(window)),
    }
}

/// A duration in the largest unit that it is a whole number of.
fn shortest(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units: [(_, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
}

/// A price of USD per million tokens in pico-USD per token: exactly what is written, for a number
/// and the shortest text that stands for it are the same.
///
/// # Errors
/// What is wrong with it.
pub(super) fn price(usd: f64) -> Result<u64, String> {
    let most = DEAREST * 10_u64.pow(PRICE_PLACES);
    let text = usd.to_string();
    match parse_fixed(&text, PRICE_PLACES) {
        Ok(pico) if pico <= most => Ok(pico),
        Err(UnitError::TooFine(..)) => {
            Err(format!("{text} USD per million tokens has more than {PRICE_PLACES} decimals"))
        }
        _ => Err(format!("{} USD per million tokens is absurd", shown(&text))),
    }
}

/// What to write for a price.
pub(super) const PRICES: &str = "give USD per million tokens, from 0 to 100000";

/// What a budget allows in micro-USD.
///
/// # Errors
/// What is wrong with it.
pub(super) fn budget(limit: Money) -> Result<u64, Vec<Flaw>> {
    let mut flaws = Vec::new();
    let limit = amount("limit", Metric::Cost, Amount::Money(limit), &mut flaws);
    if flaws.is_empty() { Ok(limit) } else { Err(flaws) }
}

/// What the id of a tenant's budget is made of.
pub(super) fn tenant_budget(tenant: &str) -> String {
    format!("budget/tenant/{tenant}")
}

/// What the id of a key's budget is made of.
pub(super) fn key_budget(key: &str) -> String {
    format!("budget/key/{key}")
}

/// `share` of `amount`, to the nearest whole number.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "amounts are below 2^48 and shares from 0 to 1"
)]
pub(super) fn share_of(amount: u64, share: f64) -> u64 {
    (amount as f64 * share).round() as u64
}

#[cfg(test)]
mod tests;
