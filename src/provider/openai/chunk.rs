//! Reads one event of a stream: what it brings, and where its usage stands.
//!
//! Reading is lenient but for one thing: the data must be a JSON object. Members of an unexpected
//! type are passed on and bring nothing, so that a vendor's extension never breaks a stream.

use std::ops::Range;

use memchr::memchr;
use smallvec::SmallVec;

use super::{error, usage};
use crate::domain::Usage;
use crate::provider::json::{Invalid, Reader};
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whether there is content in it.
    pub(super) content: bool,
    /// Bytes of generated text in it.
    pub(super) text_bytes: u64,
    /// Where the inside of one of its texts stands, if it is written without escapes.
    pub(super) text_at: Option<Range<usize>>,
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
    let (mut says_error, mut error) = (false, None);
    let (mut typed, mut delta, mut audio) = (None, None, None);
    let (mut bare, mut usage_given) = (true, false);
    json::members(text, |key, reader| {
        match &*key.name {
            "choices" if kind == Kind::Choices => bare = chunk.choices(reader)?,
            "error" => error = Some(reader.value()?).filter(|value| holds_something(value)),
            "object" => says_error |= reader.value()? == r#""error""#,
            "type" => {
                let value = reader.value()?;
                says_error |= value == r#""error""#;
                typed = json::string(value);
            }
            "delta" => delta = Some(reader.value()?),
            "audio" => audio = Some(reader.value()?),
            "usage" => {
                let start = reader.at();
                chunk.usage = usage::read(reader)?;
                usage_given = json::given(reader.since(start)).is_some();
                chunk.usage_at = Some(with_comma(text, key.start..reader.at()));
            }
            _ => {}
        }
        Ok(())
    })
    .map_err(|_| NotJson)?;
    if error.is_some() || says_error {
        let status = error::status_of(error.unwrap_or(text));
        return Ok(Chunk { error: Some(status), ..Chunk::default() });
    }
    match kind {
        Kind::Choices => chunk.only_usage = usage_given && bare,
        Kind::Typed => chunk.take_typed(typed.as_deref().unwrap_or_default(), delta, audio),
    }
    Ok(chunk)
}

// === impl Chunk ===

impl Chunk {
    /// Reads the choices; true where there are none.
    fn choices(&mut self, reader: &mut Reader<'_>) -> Result<bool, Invalid> {
        let mut none = true;
        let start = reader.at();
        let is_array = reader.elements(|choice| {
            none = false;
            self.choice(choice)
        })?;
        Ok(if is_array { none } else { reader.since(start) == "null" })
    }

    fn choice(&mut self, reader: &mut Reader<'_>) -> Result<(), Invalid> {
        let (mut index, mut finished) = (None, false);
        reader.members(|key, reader| {
            match &*key.name {
                "index" => index = reader.value()?.parse().ok(),
                "delta" => self.delta(reader)?,
                "text" => self.next_text(reader)?,
                "finish_reason" => finished |= holds_something(reader.value()?),
                _ => {}
            }
            Ok(())
        })?;
        if finished {
            self.finished.push(index.unwrap_or(0));
        }
        Ok(())
    }

    fn delta(&mut self, reader: &mut Reader<'_>) -> Result<(), Invalid> {
        // Some providers send the same reasoning under several names; one of them counts.
        let mut reasoning: [Option<&str>; 3] = [None; 3];
        reader.members(|key, reader| {
            match &*key.name {
                "content" | "refusal" => self.next_text(reader)?,
                "reasoning_content" => reasoning[0] = Some(reader.value()?),
                "reasoning" => reasoning[1] = Some(reader.value()?),
                "reasoning_details" => reasoning[2] = Some(reader.value()?),
                "tool_calls" => {
                    let start = reader.at();
                    reader.elements(|call| self.tool_call(call))?;
                    self.content(reader.since(start));
                }
                "function_call" | "audio" => {
                    let start = reader.at();
                    reader.members(|key, reader| self.part(&key.name, reader))?;
                    self.content(reader.since(start));
                }
                _ => {}
            }
            Ok(())
        })?;
        if let Some(text) = reasoning.into_iter().flatten().find(|value| holds_something(value)) {
            self.text(text);
        }
        Ok(())
    }

    fn tool_call(&mut self, reader: &mut Reader<'_>) -> Result<(), Invalid> {
        reader.members(|key, reader| {
            if let "function" | "custom" = &*key.name {
                reader.members(|key, reader| self.part(&key.name, reader))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A member of a call of a function or of a custom tool, or of spoken audio.
    fn part(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), Invalid> {
        if let "name" | "arguments" | "input" | "transcript" = key {
            self.next_text(reader)?;
        }
        Ok(())
    }

    fn take_typed(&mut self, typed: &str, delta: Option<&str>, audio: Option<&str>) {
        match typed {
            "transcript.text.delta" => self.text(delta.unwrap_or("null")),
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

    /// Notes whether there is content in this value.
    fn content(&mut self, value: &str) -> bool {
        let holds = holds_something(value);
        self.content |= holds;
        holds
    }

    /// Reads a value that is text, and remembers where.
    fn next_text(&mut self, reader: &mut Reader<'_>) -> Result<(), Invalid> {
        let value = reader.value()?;
        self.text(value);
        if value.starts_with('"') && memchr(b'\\', value.as_bytes()).is_none() {
            let end = reader.at();
            self.text_at = Some(end - value.len() + 1..end - 1).filter(|inside| !inside.is_empty());
        }
        Ok(())
    }

    /// Notes content that is text, and counts it.
    fn text(&mut self, value: &str) {
        if self.content(value) {
            self.text_bytes = self.text_bytes.saturating_add(text_len(value));
        }
    }
}

/// False for `null`, `false` and empty strings, arrays and objects.
fn holds_something(text: &str) -> bool {
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
