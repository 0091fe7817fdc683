//! What a request asks for, and the one way to change it: new bytes spliced into the old ones.
//!
//! A body is never written anew. That would reorder keys and reformat numbers, which breaks
//! providers' prompt caches, and it would copy megabytes of images for a model name.

use std::ops::Range;

use bytes::Bytes;

use super::{BodyKind, Endpoint, Protocol, openai};
use crate::domain::{Code, Fault, Payload};

/// The longest model name; real ones have less than a hundred bytes.
const MAX_MODEL: usize = 256;

/// The longest name of a client's own user. It is part of counters' keys.
const MAX_USER: usize = 512;

/// What a request asks for: the few fields that decide something, read without building a tree.
///
/// It remembers where the fields stand, so that `rewrite` can splice new values into the original
/// bytes.
#[derive(Debug)]
pub struct Envelope {
    /// The model as the client names it, unescaped.
    pub model: String,
    /// Whether the answer is to be a stream of events.
    pub stream: bool,
    /// The most tokens the client allows for the answer.
    pub max_tokens: Option<u64>,
    /// The client's own user: `user` or `safety_identifier`.
    pub user: Option<String>,
    /// How many choices the answer will have: `n`, times the prompts of a batch; at least 1.
    pub choices: u32,
    /// Whether the client itself asked for usage in the stream.
    pub include_usage: bool,
    /// Where the model stands, and how it is written there.
    pub(super) model_at: Range<usize>,
    pub(super) notation: Notation,
    /// What to write where, so that the stream tells its usage; `None` where that is not needed.
    pub(super) usage_question: Option<(Range<usize>, &'static str)>,
}

/// How a value is written in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    /// As a JSON string, quotes included.
    Json,
    /// As plain bytes between two boundaries.
    Plain,
}

impl Envelope {
    /// Reads the body of a request to `endpoint`; `content_type` is the request's header.
    ///
    /// # Errors
    /// A `Fault` with the code `invalid_request` (not valid JSON or multipart, not UTF-8, no
    /// model, a field of the wrong type or in another case) or `duplicate_field`, whose message names the field or
    /// the place.
    pub fn read(
        endpoint: Endpoint,
        content_type: Option<&str>,
        body: &Bytes,
    ) -> Result<Self, Fault> {
        let kind = content_type.unwrap_or("application/json");
        let form = is_form(kind);
        match (endpoint.body_kind(), form, is_json(kind)) {
            (BodyKind::Json | BodyKind::Either, _, true) => match endpoint.protocol() {
                Protocol::OpenAi => openai::request::read(endpoint, body),
            },
            (BodyKind::Form | BodyKind::Either, true, _) => match endpoint.protocol() {
                Protocol::OpenAi => openai::form::read(kind, body),
            },
            (BodyKind::Json, ..) => {
                Err(invalid("this endpoint takes JSON: send `content-type: application/json`"))
            }
            (BodyKind::Form, ..) => Err(invalid("this endpoint takes `multipart/form-data`")),
            (BodyKind::Either, ..) => {
                Err(invalid("this endpoint takes `multipart/form-data` or `application/json`"))
            }
        }
    }

    /// The body to send upstream: `model` in place of the client's where one is given, and
    /// `stream_options.include_usage` set where `ask_usage` says so. All other bytes stay as they
    /// are and are shared with `body`, which must be the one that was read.
    ///
    /// `ask_usage` changes nothing where the answer is no stream, where the client asked itself,
    /// and at endpoints that know no such question.
    #[must_use]
    pub fn rewrite(&self, body: &Bytes, model: Option<&str>, ask_usage: bool) -> Payload {
        let model = model
            .filter(|&name| name != self.model)
            .map(|name| (self.model_at.clone(), self.notation.write(name)));
        let usage = self
            .usage_question
            .as_ref()
            .filter(|_| ask_usage)
            .map(|(at, text)| (at.clone(), Bytes::from_static(text.as_bytes())));
        let usage_first = usage.as_ref().is_some_and(|(at, _)| at.start < self.model_at.start);
        let splices = if usage_first { [usage, model] } else { [model, usage] };

        let mut payload = Payload::new();
        let mut done = 0;
        for (at, text) in splices.into_iter().flatten() {
            payload.push(body.slice(done..at.start));
            payload.push(text);
            done = at.end;
        }
        payload.push(body.slice(done..));
        payload
    }

    /// Whether `rewrite` with `ask_usage` adds the question for usage, so that what it adds to the
    /// answer must be hidden from the client.
    #[must_use]
    pub fn usage_can_be_asked(&self) -> bool {
        self.usage_question.is_some()
    }
}

impl Notation {
    fn write(self, name: &str) -> Bytes {
        match self {
            Self::Json => serde_json::to_vec(name).expect("a string is always valid JSON").into(),
            // A line break would end the part; no model's name has one.
            Self::Plain => name.chars().filter(|c| !c.is_control()).collect::<String>().into(),
        }
    }
}

/// A fault of the request's form.
pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(Code::InvalidRequest, message)
}

/// The fault of a field that stands twice, in whatever spelling.
pub(super) fn duplicate(field: &str) -> Fault {
    Fault::new(
        Code::DuplicateField,
        format!("`{field}` stands more than once in the body; send it once"),
    )
}

/// The fault of a field that would mean something if it were in lower case.
pub(super) fn other_case(field: &str) -> Fault {
    invalid(format!("`{field}` is not in lower case in the body; write it as it is here"))
}

/// Checks a model's name.
pub(super) fn model(name: &str) -> Result<String, Fault> {
    if name.is_empty() {
        return Err(invalid("`model` is empty; name a model"));
    }
    if name.len() > MAX_MODEL {
        return Err(invalid(format!("`model` is longer than {MAX_MODEL} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(invalid("`model` holds a control character"));
    }
    Ok(name.to_owned())
}

/// Checks the name of a client's user; an empty one counts as none.
pub(super) fn user(field: &str, name: &str) -> Result<Option<String>, Fault> {
    if name.len() > MAX_USER {
        return Err(invalid(format!("`{field}` is longer than {MAX_USER} bytes")));
    }
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let suffix = essence.len().checked_sub(5).and_then(|at| essence.get(at..));
    essence.eq_ignore_ascii_case("application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

fn is_form(content_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case("multipart/form-data")
}

#[cfg(test)]
mod tests;
