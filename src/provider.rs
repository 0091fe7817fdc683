//! Wire protocols: bytes and events in and out, usage, errors. No I/O and no clock.
//!
//! One folder for each protocol; this file is the table through which the others reach them.

mod endpoint;
pub mod openai;
mod sse;

use bytes::Bytes;

pub use endpoint::Endpoint;
pub use sse::{Scanner, ScanError};

use crate::domain::{Fault, Payload, Usage};

/// The wire protocol of a client or of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI's Chat Completions and its sister endpoints, as many vendors copy them.
    OpenAi,
}

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
    /// How many choices were asked for (`n`), at least 1.
    pub choices: u32,
    /// Whether the client itself asked for usage in the stream.
    pub include_usage: bool,
}

impl Envelope {
    /// Reads the body of a request to `endpoint`; `content_type` is the request's header.
    ///
    /// # Errors
    /// A `Fault` with the code `invalid_request` (not valid JSON or multipart, not UTF-8, no
    /// model, a field of the wrong type) or `duplicate_field`, whose message names the field or
    /// the place.
    pub fn read(_endpoint: Endpoint, _content_type: Option<&str>, _body: &Bytes) -> Result<Self, Fault> {
        todo!()
    }

    /// The body to send upstream: `model` in place of the client's where one is given, and
    /// `stream_options.include_usage` set where `ask_usage` says so. All other bytes stay as they
    /// are and are shared with `body`, which must be the one that was read.
    #[must_use]
    pub fn rewrite(&self, _body: &Bytes, _model: Option<&str>, _ask_usage: bool) -> Payload {
        todo!()
    }
}

/// What a piece of a stream brought.
#[derive(Debug, Default)]
pub struct Progress {
    /// Complete events for the client, in order and untouched but for what hides our usage
    /// question; may be empty.
    pub bytes: Bytes,
    /// Whether there was content among them: text, a tool call, reasoning, a refusal, audio.
    pub content: bool,
    /// Why the stream is at its end as a failure; nothing more is to be fed.
    pub fault: Option<StreamFault>,
}

/// Why a stream is a failure.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// The provider sent an error event; `event` is that event as it came, `status` the HTTP
    /// status it stands for, where it names one.
    #[error("the provider sent an error event")]
    Provider {
        /// The raw event, ready to be passed on.
        event: Bytes,
        /// The status it stands for.
        status: Option<u16>,
    },
    /// An event that is not what the protocol says.
    #[error("malformed event")]
    Malformed,
    /// An event larger than the bound of the scanner.
    #[error("event too large")]
    TooLarge,
    /// The stream ended before its terminal event.
    #[error("the stream broke off")]
    Truncated,
}
/// Keeps the signature of `Usage` in scope for the skeleton.
pub type UsageOf = Option<Usage>;
