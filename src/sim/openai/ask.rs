//! What a request asks for: the few fields that decide the answer.

use std::borrow::Cow;

use super::super::form;
use super::super::json::{NotJson, elements, inner, members, push_escaped};
use super::super::server::Call;
use super::Kind;

/// The most choices one request may ask for, as with OpenAI.
const MOST_CHOICES: u32 = 128;

/// The most inputs in one request, as with OpenAI, and the most choices for all of them: an answer
/// is made in memory.
const MOST_INPUTS: usize = 2048;

/// The fields of a request, as text of the body where they are structured.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    /// The model, escaped as in the body, so that it can be echoed as it is.
    pub(super) model: Cow<'a, str>,
    /// The required field: messages, input or prompt; empty for an upload.
    pub(super) input: &'a str,
    /// Whether the answer is to be a stream.
    pub(super) stream: bool,
    /// Whether a stream is to end with a usage chunk.
    pub(super) include_usage: bool,
    /// The number of choices, or of images.
    pub(super) n: u32,
    /// The most tokens an answer may have.
    pub(super) max_tokens: Option<u32>,
    /// The tools that may be called.
    pub(super) tools: Option<&'a str>,
    /// Whether and which of them must be called.
    pub(super) tool_choice: Option<&'a str>,
    /// `response_format`: an object for chat, a word for audio.
    pub(super) format: Option<&'a str>,
    /// How many numbers an embedding is to have.
    pub(super) dimensions: Option<u32>,
    /// How embeddings are to be encoded.
    pub(super) encoding: Option<&'a str>,
    /// How speech is to be streamed.
    pub(super) stream_format: Option<&'a str>,
}

/// Why a request cannot be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRequest {
    /// What is wrong.
    pub(super) message: String,
    /// The field it is about.
    pub(super) field: Option<&'static str>,
}

impl From<NotJson> for BadRequest {
    fn from(_: NotJson) -> Self {
        Self { message: "the body is not a JSON object".to_owned(), field: None }
    }
}

impl<'a> Ask<'a> {
    /// Reads the body of a request.
    pub(super) fn read(kind: Kind, call: &'a Call<'_>) -> Result<Self, BadRequest> {
        let mut ask =
            if call.form { Self::form(kind, call.body) } else { Self::json(kind, call.body)? };
        if ask.model.is_empty() {
            let model = kind.usual_model().ok_or_else(|| missing("model"))?;
            ask.model = Cow::Borrowed(model);
        }
        if ask.input.is_empty() {
            return Err(missing(kind.required()));
        }
        if !(1..=MOST_CHOICES).contains(&ask.n) {
            let message = format!("n is to be between 1 and {MOST_CHOICES}");
            return Err(BadRequest { message, field: Some("n") });
        }
        let inputs = if kind.takes_several() { ask.inputs().len() } else { 1 };
        if inputs.saturating_mul(ask.n as usize) > MOST_INPUTS {
            let message = format!("{MOST_INPUTS} inputs are the most, times n");
            return Err(BadRequest { message, field: Some(kind.required()) });
        }
        Ok(ask)
    }

    fn json(kind: Kind, body: &'a [u8]) -> Result<Self, BadRequest> {
        let text = std::str::from_utf8(body).map_err(|_| NotJson)?;
        let mut ask = Self { n: 1, ..Self::default() };
        members(text, |name, value| {
            if value != "null" {
                ask.member(kind, name, value);
            }
        })?;
        Ok(ask)
    }

    fn member(&mut self, kind: Kind, name: &str, value: &'a str) {
        match name {
            "model" => self.model = Cow::Borrowed(inner(value).unwrap_or_default()),
            "stream" => self.stream = value == "true",
            "stream_options" => self.include_usage = asks_usage(value),
            "n" => self.n = value.parse().unwrap_or(0),
            "max_tokens" | "max_completion_tokens" => self.max_tokens = value.parse().ok(),
            "tools" => self.tools = Some(value),
            "tool_choice" => self.tool_choice = Some(value),
            "response_format" => self.format = Some(inner(value).unwrap_or(value)),
            "dimensions" => self.dimensions = value.parse().ok(),
            "encoding_format" => self.encoding = inner(value),
            "stream_format" => self.stream_format = inner(value),
            // JSON edits name their picture `images`.
            "images" if kind == Kind::ImagesEdits => self.input = value,
            name if name == kind.required() => self.input = value,
            _ => {}
        }
    }

    fn form(kind: Kind, body: &'a [u8]) -> Self {
        let mut model = String::new();
        push_escaped(&mut model, form::text(body, "model").unwrap_or_default());
        let upload = form::field(body, kind.required())
            .or_else(|| form::field(body, &format!("{}[]", kind.required())));
        Self {
            model: Cow::Owned(model),
            input: if upload.is_some() { "upload" } else { "" },
            stream: form::text(body, "stream") == Some("true"),
            n: form::text(body, "n").map_or(1, |n| n.parse().unwrap_or(0)),
            format: form::text(body, "response_format"),
            ..Self::default()
        }
    }

    /// How many inputs a list holds; a single text, or one list of token numbers, is one.
    pub(super) fn inputs(&self) -> Vec<&'a str> {
        let mut found = Vec::new();
        let list = elements(self.input, |element| {
            if found.len() <= MOST_INPUTS {
                found.push(element);
            }
        });
        let several = found.first().is_some_and(|first| first.starts_with(['"', '[', '{']));
        if list.is_err() || !several { vec![self.input] } else { found }
    }
}

fn asks_usage(options: &str) -> bool {
    let mut asked = false;
    let read = members(options, |name, value| asked |= name == "include_usage" && value == "true");
    // Nonsense asks for nothing.
    asked && read.is_ok()
}

fn missing(field: &'static str) -> BadRequest {
    BadRequest { message: format!("{field} is missing"), field: Some(field) }
}
