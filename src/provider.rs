//! Wire protocols: bytes and events in and out, usage, errors. No I/O and no clock.
//!
//! One folder for each protocol; this file is the table through which the others reach them.

mod decode;
mod endpoint;
mod envelope;
mod json;
mod multipart;
pub mod openai;
mod output;
mod sse;

use bytes::Bytes;

pub use decode::{DecodeError, Decoder};
pub use endpoint::{BodyKind, Endpoint};
pub use envelope::Envelope;
pub use sse::{Event, MAX_EVENT, ScanError, Scanner};

/// The wire protocol of a client or of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI's Chat Completions and its sister endpoints, as many vendors copy them.
    OpenAi,
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
