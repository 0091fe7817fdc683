//! Reads one event of a stream: what it brings, and where its usage stands.
//!
//! Reading is lenient but for one thing: the data must be a JSON object. Members of an unexpected
//! type are passed on and bring nothing, so that a vendor's extension never breaks a stream.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{error, usage};
use crate::domain::Usage;
use crate::provider::{Endpoint, json};

/// What the events of an endpoint look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Chunks with `choices`, as chat and completions send them.
    Choices,
    /// Events with a `type`, as images and audio send them.
    Typed,
}

/// What one event brings.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Whether there is content in it.
    pub(super) content: bool,
    /// Bytes of generated text in it.
    pub(super) text_bytes: u64,
    /// The choices that end with it; for typed events one entry for a terminal event.
    pub(super) finished: SmallVec<[u32; 4]>,
    /// The figures in it.
    pub(super) usage: Option<Usage>,
    /// What to leave out of the data so that there is no `usage` in it.
    pub(super) usage_at: Option<Range<usize>>,
    /// Whether it is there for the sake of usage only.
    pub(super) only_usage: bool,
    /// Set where it is an error; the status inside where it names one.
    pub(super) error: Option<Option<u16>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
    #[serde(borrow)]
    custom: Option<Function<'a>>,
}

/// A call of a function or of a custom tool, or spoken audio: the members that hold text.
#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    transcript: Option<&'a RawValue>,
}

/// The data is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

impl Kind {
    pub(super) fn of(endpoint: Endpoint) -> Self {
        if endpoint.usage_is_optional() { Self::Choices } else { Self::Typed }
    }
}

/// Reads the data of an event.
pub(super) fn read(kind: Kind, data: &[u8]) -> Result<Chunk, NotJson> {
    let text = std::str::from_utf8(data).map_err(|_| NotJson)?;
    let mut chunk = Chunk::default();
    let (mut choices, mut says_error, mut error, mut typed) = (None, false, None, None);
    let (mut delta, mut audio) = (None, None);
    let mut usage_given = false;
    json::members(text, |member| match &*member.key {
        "choices" => choices = member.given(),
        "error" => error = member.given().filter(|value| holds_something(value)),
        "object" => says_error |= member.value.get() == r#""error""#,
        "type" => {
            says_error |= member.value.get() == r#""error""#;
            typed = json::string(member.value.get());
        }
        "delta" => delta = member.given(),
        "audio" => audio = member.given(),
        "usage" => {
            usage_given = member.given().is_some();
            chunk.usage = member.given().and_then(|value| usage::parse(value.get()));
            let key = json::span(text, member.key_text).start;
            let end = json::span(text, member.value.get()).end;
            chunk.usage_at = Some(with_comma(text, key..end));
        }
        _ => {}
    })
    .map_err(|_| NotJson)?;
    if error.is_some() || says_error {
        let described = error.map_or(text, RawValue::get);
        chunk.error = Some(error::status_of(described));
        return Ok(chunk);
    }
    match kind {
        Kind::Choices => {
            let choices = choices.map_or(Some(Vec::new()), |raw| {
                serde_json::from_str::<Vec<Choice<'_>>>(raw.get()).ok()
            });
            chunk.only_usage = usage_given && choices.as_ref().is_some_and(Vec::is_empty);
            choices.unwrap_or_default().iter().for_each(|choice| chunk.take(choice));
        }
        Kind::Typed => chunk.take_typed(typed.as_deref().unwrap_or_default(), delta, audio),
    }
    Ok(chunk)
}

// === impl Chunk ===

impl Chunk {
    fn take(&mut self, choice: &Choice<'_>) {
        if let Some(delta) = &choice.delta {
            self.take_delta(delta);
        }
        self.text(choice.text);
        if choice.finish_reason.is_some_and(holds_something) {
            let index = choice.index.and_then(|index| index.get().parse().ok());
            self.finished.push(index.unwrap_or(0));
        }
    }

    fn take_delta(&mut self, delta: &Delta<'_>) {
        self.text(delta.content);
        self.text(delta.refusal);
        // Some providers send the same reasoning under several names.
        let names = [delta.reasoning_content, delta.reasoning, delta.reasoning_details];
        self.text(names.into_iter().flatten().find(|value| holds_something(value)));
        if let Some(calls) = self.content(delta.tool_calls) {
            let calls: Vec<ToolCall<'_>> = serde_json::from_str(calls).unwrap_or_default();
            for function in calls.iter().flat_map(|call| [&call.function, &call.custom]).flatten() {
                self.take_function(function);
            }
        }
        for part in [delta.function_call, delta.audio] {
            let part = self.content(part).and_then(|part| serde_json::from_str(part).ok());
            if let Some(function) = &part {
                self.take_function(function);
            }
        }
    }

    fn take_function(&mut self, part: &Function<'_>) {
        for text in [part.name, part.arguments, part.input, part.transcript] {
            self.text(text);
        }
    }

    fn take_typed(&mut self, typed: &str, delta: Option<&RawValue>, audio: Option<&RawValue>) {
        match typed {
            "transcript.text.delta" => self.text(delta),
            "speech.audio.delta" => self.content = audio.is_some_and(holds_something),
            "transcript.text.segment"
            | "image_generation.partial_image"
            | "image_edit.partial_image" => self.content = true,
            "transcript.text.done"
            | "speech.audio.done"
            | "image_generation.completed"
            | "image_edit.completed" => {
                self.content = true;
                self.finished.push(0);
            }
            _ => {}
        }
    }

    /// Notes content; gives its JSON where there is any.
    fn content<'a>(&mut self, value: Option<&'a RawValue>) -> Option<&'a str> {
        let value = value.filter(|value| holds_something(value))?;
        self.content = true;
        Some(value.get())
    }

    /// Notes content that is text, and counts it.
    fn text(&mut self, value: Option<&RawValue>) {
        if let Some(value) = self.content(value) {
            self.text_bytes = self.text_bytes.saturating_add(text_len(value));
        }
    }
}

/// False for `null`, `false` and empty strings, arrays and objects.
fn holds_something(value: &RawValue) -> bool {
    let text = value.get();
    let inside = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'"') => !inside.is_empty(),
        Some(b'[' | b'{') => !inside.trim_ascii().is_empty(),
        _ => !matches!(text, "null" | "false"),
    }
}

/// The bytes of a JSON string once it is unescaped; of any other value, its own bytes.
fn text_len(raw: &str) -> u64 {
    let len = match json::string(raw) {
        Some(text) => text.len(),
        None => raw.len(),
    };
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A member's place, widened by the one comma that goes with it and the space beside that.
fn with_comma(text: &str, member: Range<usize>) -> Range<usize> {
    let before = text.get(..member.start).unwrap_or_default().trim_ascii_end();
    if before.ends_with(',') {
        return before.len() - 1..member.end;
    }
    let after = text.get(member.end..).unwrap_or_default().trim_ascii_start();
    match after.strip_prefix(',') {
        Some(next) => member.start..text.len() - next.trim_ascii_start().len(),
        None => member,
    }
}

#[cfg(test)]
mod tests;
