//! Texts with a meaning of their own: durations, times, secrets, amounts of money.
//!
//! Each names its check in the schema as `x-check`, so that the walk over a document finds every
//! bad one with its place; deserialization then only repeats what has been checked.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::domain::{KeyHash, Secret, UnitError, parse_duration, parse_fixed};

/// No clock of ours is longer; it keeps every deadline within what the clocks can hold.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Checks a text by the name of its check. The message never repeats what could be a secret.
pub(in crate::config) fn check(name: &str, text: &str) -> Result<(), String> {
    match name {
        "duration" => duration(text).map(drop),
        "time" => time(text).map(drop),
        "key-hash" => text.parse::<KeyHash>().map(drop).map_err(|error| error.to_string()),
        "money" => money(text).map(drop),
        "variables" => variables(text),
        _ => Ok(()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        return Err(format!("{text:?} is longer than 366d"));
    }
    Ok(duration)
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "not a time; write it with its offset, such as 2027-01-01T00:00:00Z".to_owned()
    })
}

/// An amount of money in micro-USD.
fn money(text: &str) -> Result<u64, String> {
    const HINT: &str = "write for instance \"100 USD\"";
    let amount = text.strip_suffix(" USD").map(|amount| parse_fixed(amount, 6));
    match amount {
        Some(Ok(micro)) => Ok(micro),
        Some(Err(UnitError::TooFine(..))) => {
            Err("an amount of money has at most 6 decimals".to_owned())
        }
        Some(Err(UnitError::TooLarge(_))) => Err("too much money to be counted".to_owned()),
        _ => Err(format!("not an amount of money; {HINT}")),
    }
}

fn variables(text: &str) -> Result<(), String> {
    use crate::config::env::{Env, ExpandError, expand};
    match expand(text, &Env::default()) {
        Err(ExpandError::Malformed) => Err("`${` begins a variable; write ${NAME}".to_owned()),
        _ if text.is_empty() => Err("empty; leave the field out or give it a value".to_owned()),
        _ => Ok(()),
    }
}

/// The schema of a text with a check.
fn text_schema(check: &str, description: &str, pattern: Option<&str>) -> Schema {
    let mut schema = json_schema!({"type": "string", "description": description, "x-check": check});
    if let Some(pattern) = pattern {
        schema.insert("pattern".into(), pattern.into());
    }
    schema
}

/// A duration with its unit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Span(pub(in crate::config) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "A duration: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`).";
        text_schema("duration", description, Some("^[0-9]+(ms|s|m|h|d)$"))
    }
}

/// A point in time.
#[derive(Clone, Copy)]
pub(in crate::config) struct Time(pub(in crate::config) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        time(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "A time as RFC 3339 writes it, such as 2027-01-01T00:00:00Z.";
        text_schema("time", description, None)
    }
}

/// A text in which `${NAME}` stands for an environment variable and which may be a secret.
pub(in crate::config) struct Variables(pub(in crate::config) Secret);

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(Secret::new(String::deserialize(from)?)))
    }
}

impl JsonSchema for Variables {
    fn schema_name() -> Cow<'static, str> {
        "TextWithVariables".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description =
            "A text in which `${NAME}` stands for an environment variable of the node.";
        text_schema("variables", description, None)
    }
}

/// The hash of a key.
#[derive(Clone, Copy)]
pub(in crate::config) struct Hash(pub(in crate::config) KeyHash);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Hash {
    fn schema_name() -> Cow<'static, str> {
        "KeyHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "The SHA-256 of a key: `sha256:` and 64 hexadecimal digits.";
        text_schema("key-hash", description, Some("^sha256:[0-9a-fA-F]{64}$"))
    }
}

/// An amount of money in micro-USD.
#[derive(Clone, Copy)]
pub(in crate::config) struct Money(pub(in crate::config) u64);

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        money(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "An amount of money, such as `100 USD`, with at most 6 decimals.";
        text_schema("money", description, Some("^[0-9]+([.][0-9]{1,6})? USD$"))
    }
}
