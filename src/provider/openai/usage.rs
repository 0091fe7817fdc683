//! Reads the `usage` object of an answer.
//!
//! Chat and completions say `prompt_tokens` and `completion_tokens`, newer endpoints `input_tokens`
//! and `output_tokens`. Figures that cannot be true are as good as none: the request is then
//! charged by estimate instead of by nonsense.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::Usage;

/// Beyond this a figure is no count of tokens. It is far above any context and small enough that
/// no price can make it overflow.
const MAX_TOKENS: u64 = 1 << 40;

/// The figures in the JSON object `text`, if they make sense.
pub(super) fn parse(text: &str) -> Option<Usage> {
    let Value::Object(figures) = serde_json::from_str(text).ok()? else { return None };
    let sane = |value| match value {
        Value::Absent => Some(None),
        Value::Tokens(tokens) => Some(Some(tokens)),
        Value::Object(_) | Value::Nonsense => None,
    };
    let (input, output) = (sane(figures.input)?, sane(figures.output)?);
    if input.is_none() && output.is_none() {
        return None;
    }
    let (input_tokens, output_tokens) = (input.unwrap_or(0), output.unwrap_or(0));
    Some(Usage {
        input_tokens,
        output_tokens,
        // A part is never more than its whole, so that no difference is ever negative.
        cached_tokens: figures.cached.min(input_tokens),
        reasoning_tokens: figures.reasoning.min(output_tokens),
        estimated: false,
    })
}

/// Any value in the place of a figure: read in one pass, because every answer ends with one.
#[derive(Default)]
enum Value {
    /// Nothing, or null.
    #[default]
    Absent,
    /// A count that can be true.
    Tokens(u64),
    /// An object: `usage` itself, or the details of a figure.
    Object(Box<Figures>),
    /// Anything else.
    Nonsense,
}

/// What is looked for in an object, at its own level and in its details.
#[derive(Default)]
struct Figures {
    input: Value,
    output: Value,
    cached: u64,
    reasoning: u64,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, tokens: u64) -> Result<Value, E> {
        Ok(if tokens <= MAX_TOKENS { Value::Tokens(tokens) } else { Value::Nonsense })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Nonsense)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Nonsense)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Nonsense)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Nonsense)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Nonsense)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut figures = Figures::default();
        while let Some(Key(field)) = map.next_key()? {
            match field {
                Field::Input => figures.input = map.next_value()?,
                Field::Output => figures.output = map.next_value()?,
                Field::Cached => figures.cached = count(&map.next_value()?),
                Field::Reasoning => figures.reasoning = count(&map.next_value()?),
                Field::Details => {
                    if let Value::Object(details) = map.next_value()? {
                        figures.cached = figures.cached.max(details.cached);
                        figures.reasoning = figures.reasoning.max(details.reasoning);
                    }
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(Box::new(figures)))
    }
}

fn count(value: &Value) -> u64 {
    if let Value::Tokens(tokens) = value { *tokens } else { 0 }
}

enum Field {
    Input,
    Output,
    Cached,
    Reasoning,
    Details,
    Other,
}

/// A key, recognised without being kept.
struct Key(Field);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key(match key {
            "prompt_tokens" | "input_tokens" => Field::Input,
            "completion_tokens" | "output_tokens" => Field::Output,
            "cached_tokens" => Field::Cached,
            "reasoning_tokens" => Field::Reasoning,
            "prompt_tokens_details"
            | "input_tokens_details"
            | "completion_tokens_details"
            | "output_tokens_details" => Field::Details,
            _ => Field::Other,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_chat_and_of_newer_endpoints_are_read() {
        let chat = r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,
            "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":5}}"#;
        let newer = r#"{"type":"tokens","input_tokens":9,"output_tokens":12,
            "input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":5}}"#;
        let expected = Usage {
            input_tokens: 9,
            output_tokens: 12,
            cached_tokens: 4,
            reasoning_tokens: 5,
            estimated: false,
        };
        assert_eq!(parse(chat), Some(expected));
        assert_eq!(parse(newer), Some(expected));
    }

    #[test]
    fn embeddings_have_no_output() {
        let usage = parse(r#"{"prompt_tokens":8,"total_tokens":8}"#).expect("figures");
        assert_eq!((usage.input_tokens, usage.output_tokens), (8, 0));
    }

    #[test]
    fn a_part_is_never_more_than_its_whole() {
        let usage = parse(
            r#"{"prompt_tokens":1,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":7},
               "completion_tokens_details":{"reasoning_tokens":7}}"#,
        );
        let usage = usage.expect("figures");
        assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (1, 0));
    }

    #[test]
    fn garbage_is_no_usage() {
        for text in [
            "{}",
            "[]",
            "null",
            "7",
            r#"{"type":"duration","seconds":3}"#,
            r#"{"prompt_tokens":-1,"completion_tokens":2}"#,
            r#"{"prompt_tokens":"9"}"#,
            r#"{"prompt_tokens":1.5}"#,
            r#"{"prompt_tokens":99999999999999999999}"#,
            r#"{"prompt_tokens":9007199254740993}"#,
            r#"{"prompt_tokens":null}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn garbage_in_details_does_no_harm() {
        for details in ["null", "[]", "7", r#"{"cached_tokens":-1}"#, r#"{"cached_tokens":null}"#] {
            let text = format!(r#"{{"prompt_tokens":3,"prompt_tokens_details":{details}}}"#);
            assert_eq!(parse(&text).map(|u| (u.input_tokens, u.cached_tokens)), Some((3, 0)));
        }
    }
}
