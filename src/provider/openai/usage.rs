//! Reads the `usage` object of an answer.
//!
//! Chat and completions say `prompt_tokens` and `completion_tokens`, newer endpoints `input_tokens`
//! and `output_tokens`. Figures that cannot be true are as good as none: the request is then
//! charged by estimate instead of by nonsense.

use crate::domain::Usage;
use crate::provider::json::{self, Invalid, Reader};

/// Beyond this a figure is no count of tokens. It is far above any context and small enough that
/// no price can make it overflow.
const MAX_TOKENS: u64 = 1 << 40;

/// What may stand in the place of a figure.
#[derive(Clone, Copy, Default)]
enum Figure {
    /// Nothing, or null.
    #[default]
    Absent,
    /// A count that can be true.
    Tokens(u64),
    /// Anything else.
    Nonsense,
}

/// The figures in the JSON object `text`, if they make sense.
pub(super) fn parse(text: &str) -> Option<Usage> {
    let mut usage = None;
    json::one(text, |reader| {
        usage = read(reader)?;
        Ok(())
    })
    .ok()?;
    usage
}

/// The figures in the value that comes next, if they make sense.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Usage>, Invalid> {
    let (mut input, mut output) = (Figure::Absent, Figure::Absent);
    let (mut cached, mut reasoning) = (0, 0);
    reader.members(|key, reader| {
        match &*key.name {
            "prompt_tokens" | "input_tokens" => input = Figure::read(reader)?,
            "completion_tokens" | "output_tokens" => output = Figure::read(reader)?,
            "prompt_tokens_details"
            | "input_tokens_details"
            | "completion_tokens_details"
            | "output_tokens_details" => {
                reader.members(|key, reader| {
                    match &*key.name {
                        "cached_tokens" => cached = cached.max(Figure::read(reader)?.tokens()),
                        "reasoning_tokens" => {
                            reasoning = reasoning.max(Figure::read(reader)?.tokens());
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if let (Figure::Nonsense, _) | (_, Figure::Nonsense) | (Figure::Absent, Figure::Absent) =
        (input, output)
    {
        return Ok(None);
    }
    let (input_tokens, output_tokens) = (input.tokens(), output.tokens());
    Ok(Some(Usage {
        input_tokens,
        output_tokens,
        // A part is never more than its whole, so that no difference is ever negative.
        cached_tokens: cached.min(input_tokens),
        reasoning_tokens: reasoning.min(output_tokens),
        estimated: false,
    }))
}

impl Figure {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Invalid> {
        Ok(match json::given(reader.value()?).map(str::parse) {
            None => Self::Absent,
            Some(Ok(tokens)) if tokens <= MAX_TOKENS => Self::Tokens(tokens),
            Some(_) => Self::Nonsense,
        })
    }

    fn tokens(self) -> u64 {
        if let Self::Tokens(tokens) = self { tokens } else { 0 }
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
