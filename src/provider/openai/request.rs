//! Reads the envelope of a JSON request.
//!
//! Every field that decides something may stand once only, however its key is escaped, and in lower
//! case: what this node reads and what a provider reads must be the same field, or a second `model`
//! would smuggle a model past a key's permission. In other cases such a field is refused even where
//! it stands alone, because some providers' parsers do not tell cases apart: an `N` that this node
//! passed by would cost a hundred answers, and a `Stream_options` would stand beside the one that the
//! node adds.

use bytes::Bytes;
use memchr::{memchr_iter, memrchr};

use crate::domain::Fault;
use crate::provider::Endpoint;
use crate::provider::envelope::{self, Envelope, Notation, duplicate, invalid, other_case};
use crate::provider::json::{self, Invalid};

/// The fields that are read, in the order of `Fields`.
const NAMES: [&str; 10] = [
    "model",
    "stream",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "user",
    "safety_identifier",
    "stream_options",
    "prompt",
    "stream_format",
];

type Fields<'a> = [Option<&'a str>; NAMES.len()];

pub(in crate::provider) fn read(endpoint: Endpoint, body: &Bytes) -> Result<Envelope, Fault> {
    let text = text(body)?;
    let [model, stream, n, max, max_completion, user, safety, options, prompt, format] =
        fields(text)?;

    let model = given(model).ok_or_else(|| invalid("`model` is missing; name a model"))?;
    let model_at = json::span(text, model);
    let name = json::string(model).ok_or_else(|| invalid("`model` must be a string"))?;
    let model = envelope::model(&name)?;
    let stream = match endpoint {
        Endpoint::AudioSpeech => text_of("stream_format", format)?.as_deref() == Some("sse"),
        _ => flag("stream", stream)?.unwrap_or(false),
    };
    let n = number("n", n)?.unwrap_or(1);
    let choices = u32::try_from(n)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| invalid("`n` must be a whole number, at least 1"))?;
    // A request with both may be read either way, so the larger one is what it may cost.
    let max_tokens =
        number("max_tokens", max)?.max(number("max_completion_tokens", max_completion)?);
    let user = match user_of("user", user)? {
        None => user_of("safety_identifier", safety)?,
        given => given,
    };
    let options = stream_options(text, options)?;
    let asks = stream && endpoint.usage_is_optional() && !options.include_usage;
    Ok(Envelope {
        model,
        stream,
        max_tokens,
        user,
        choices: match endpoint {
            Endpoint::Completions => choices.saturating_mul(prompts(prompt)),
            _ => choices,
        },
        include_usage: options.include_usage,
        model_at,
        notation: Notation::Json,
        usage_question: asks.then_some(options.question),
    })
}

/// The body as text, with clear words for what is not JSON at first sight.
fn text(body: &Bytes) -> Result<&str, Fault> {
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(invalid("the body begins with a byte order mark; send plain UTF-8"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        invalid(format!("the body is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    match text.trim_start_matches([' ', '\t', '\r', '\n']).chars().next() {
        None => Err(invalid("the body is empty; send a JSON object")),
        Some('{') => Ok(text),
        Some(_) => Err(invalid("the body must be a JSON object")),
    }
}

/// The fields of the request as they stand, each of which may stand once.
fn fields(text: &str) -> Result<Fields<'_>, Fault> {
    let mut fields = Fields::default();
    let mut seen = [false; NAMES.len()];
    let (mut twice, mut other) = (None, None);
    json::members(text, |key, reader| {
        let Some(index) = NAMES.iter().position(|name| name.eq_ignore_ascii_case(&key.name)) else {
            return Ok(());
        };
        if let (Some(seen), Some(field)) = (seen.get_mut(index), fields.get_mut(index)) {
            if std::mem::replace(seen, true) {
                twice = twice.or(NAMES.get(index));
            }
            if NAMES.get(index).is_some_and(|name| *name == key.name) {
                *field = Some(reader.value()?);
            } else {
                other = other.or(NAMES.get(index));
            }
        }
        Ok(())
    })
    .map_err(|error| not_json(text, error))?;
    match (twice, other) {
        (Some(name), _) => Err(duplicate(name)),
        (None, Some(name)) => Err(other_case(name)),
        (None, None) => Ok(fields),
    }
}

/// Tells the place of what is no JSON; its own words may be secret.
fn not_json(text: &str, Invalid { at }: Invalid) -> Fault {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let line = 1 + memchr_iter(b'\n', before).count();
    let column = at - memrchr(b'\n', before).map_or(0, |feed| feed + 1);
    if at == text.len() {
        return invalid(format!(
            "the JSON of the body ends too early at line {line}, column {column}"
        ));
    }
    let column = column + 1;
    invalid(format!("the JSON of the body is not valid at line {line}, column {column}"))
}

/// `null` is as good as absent.
fn given(value: Option<&str>) -> Option<&str> {
    value.and_then(json::given)
}

fn flag(name: &str, value: Option<&str>) -> Result<Option<bool>, Fault> {
    match given(value) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(invalid(format!("`{name}` must be true or false"))),
    }
}

fn number(name: &str, value: Option<&str>) -> Result<Option<u64>, Fault> {
    given(value)
        .map(|value| value.parse())
        .transpose()
        .map_err(|_| invalid(format!("`{name}` must be a whole number, not negative")))
}

fn text_of<'a>(
    name: &str,
    value: Option<&'a str>,
) -> Result<Option<std::borrow::Cow<'a, str>>, Fault> {
    given(value)
        .map(|value| {
            json::string(value).ok_or_else(|| invalid(format!("`{name}` must be a string")))
        })
        .transpose()
}

fn user_of(name: &str, value: Option<&str>) -> Result<Option<String>, Fault> {
    text_of(name, value)?.map_or(Ok(None), |text| envelope::user(name, &text))
}

/// How many prompts a batch holds. An array of numbers is one prompt, written as tokens.
fn prompts(prompt: Option<&str>) -> u32 {
    let Some(array) = prompt.filter(|text| text.starts_with('[')) else {
        return 1;
    };
    let mut count = 0_u32;
    let counted = json::elements(array, |element| {
        count = count.saturating_add(u32::from(element.value()?.starts_with(['"', '['])));
        Ok(())
    });
    if counted.is_ok() { count.max(1) } else { 1 }
}

struct StreamOptions {
    include_usage: bool,
    /// Where to write what, so that usage is asked for.
    question: (std::ops::Range<usize>, &'static str),
}

fn stream_options(text: &str, options: Option<&str>) -> Result<StreamOptions, Fault> {
    let Some(inside) = options else {
        // A member of its own, at the front: there is a `model` to follow the comma.
        let at = text.find('{').map_or(0, |brace| brace + 1);
        let question = (at..at, r#""stream_options":{"include_usage":true},"#);
        return Ok(StreamOptions { include_usage: false, question });
    };
    if inside == "null" {
        let question = (json::span(text, inside), r#"{"include_usage":true}"#);
        return Ok(StreamOptions { include_usage: false, question });
    }
    if !inside.starts_with('{') {
        return Err(invalid("`stream_options` must be an object"));
    }
    let start = json::span(text, inside).start;
    let (mut found, mut other, mut count, mut members) = (None, false, 0, 0);
    json::members(inside, |key, reader| {
        members += 1;
        if key.name.eq_ignore_ascii_case("include_usage") {
            count += 1;
            found = Some(reader.value()?);
            other |= key.name != "include_usage";
        }
        Ok(())
    })
    .map_err(|error| not_json(inside, error))?;
    if count > 1 {
        return Err(duplicate("stream_options.include_usage"));
    }
    if other {
        return Err(other_case("stream_options.include_usage"));
    }
    let include_usage = flag("stream_options.include_usage", found)?.unwrap_or(false);
    let question = match (found, members) {
        (Some(value), _) => (json::span(text, value), "true"),
        (None, 0) => (start + 1..start + 1, r#""include_usage":true"#),
        (None, _) => (start + 1..start + 1, r#""include_usage":true,"#),
    };
    Ok(StreamOptions { include_usage, question })
}
