//! Reads the `usage` object of an answer.
//!
//! Chat and completions say `prompt_tokens` and `completion_tokens`, newer endpoints `input_tokens`
//! and `output_tokens`. Figures that cannot be true are as good as none: the request is then
//! charged by estimate instead of by nonsense.

use crate::domain::Usage;
use crate::provider::json;

/// Beyond this a figure is no count of tokens. It is far above any context and small enough that
/// no price can make it overflow.
const MAX_TOKENS: u64 = 1 << 40;

/// The figures in the JSON object `text`, if they make sense.
pub(super) fn parse(text: &str) -> Option<Usage> {
    let (mut input, mut output) = (None, None);
    let (mut cached, mut reasoning) = (0, 0);
    let mut sane = true;
    json::members(text, |member| {
        let Some(value) = member.given().map(|value| value.get()) else { return };
        match &*member.key {
            "prompt_tokens" | "input_tokens" => {
                input = tokens(value);
                sane &= input.is_some();
            }
            "completion_tokens" | "output_tokens" => {
                output = tokens(value);
                sane &= output.is_some();
            }
            "prompt_tokens_details" | "input_tokens_details" => {
                cached = detail(value, "cached_tokens").unwrap_or(cached);
            }
            "completion_tokens_details" | "output_tokens_details" => {
                reasoning = detail(value, "reasoning_tokens").unwrap_or(reasoning);
            }
            _ => {}
        }
    })
    .ok()?;
    if !sane || input.is_none() && output.is_none() {
        return None;
    }
    let (input_tokens, output_tokens) = (input.unwrap_or(0), output.unwrap_or(0));
    Some(Usage {
        input_tokens,
        output_tokens,
        // A part is never more than its whole, so that no difference is ever negative.
        cached_tokens: cached.min(input_tokens),
        reasoning_tokens: reasoning.min(output_tokens),
        estimated: false,
    })
}

fn tokens(value: &str) -> Option<u64> {
    value.parse().ok().filter(|&tokens| tokens <= MAX_TOKENS)
}

fn detail(object: &str, name: &str) -> Option<u64> {
    let mut found = None;
    json::members(object, |member| {
        if member.key == name {
            found = tokens(member.value.get());
        }
    })
    .ok()?;
    found
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
