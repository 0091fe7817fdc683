//! OpenAI's wire protocol.
//!
//! SKELETON: the signatures that `proxy` builds on. Each belongs in a file of its own in this folder.

use actix_http::header::HeaderMap;
use bytes::Bytes;

use super::{Endpoint, Progress, StreamFault};
use crate::domain::{Fault, Secret, Usage};

/// The state of one answer that is a stream of events.
#[derive(Debug)]
pub struct Stream;

impl Stream {
    /// A stream that answers a request to `endpoint` for `choices` choices. `hide_usage` takes out
    /// what asking for usage added: the last chunk and the null fields.
    #[must_use]
    pub fn new(_endpoint: Endpoint, _choices: u32, _hide_usage: bool) -> Self {
        todo!()
    }
    /// Takes the next bytes of the body, split anywhere. At most one incomplete event is kept back.
    pub fn feed(&mut self, _chunk: Bytes) -> Progress {
        todo!()
    }
    /// The body ended cleanly: what is still to be sent to the client (an event that lacked its
    /// last blank line, or the `[DONE]` that a provider left out although every choice is finished).
    ///
    /// # Errors
    /// `Truncated` where the answer is not complete.
    pub fn finish(&mut self) -> Result<Bytes, StreamFault> {
        todo!()
    }
    /// True once the terminal event (`[DONE]`, or the typed `.done`/`.completed`) was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        todo!()
    }
    /// The provider's own figures, once they came.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        todo!()
    }
    /// Bytes of generated text seen so far, for an estimate where no figures came.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        todo!()
    }
}

/// Finds `usage` in a plain JSON answer that passes by in pieces of any size, in bounded memory.
#[derive(Debug, Default)]
pub struct UsageScan;

impl UsageScan {
    /// Looks at the next piece.
    pub fn feed(&mut self, _piece: &[u8]) {
        todo!()
    }
    /// The figures, once they passed by.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        todo!()
    }
}

/// The body of an error of our own.
#[must_use]
pub fn error_body(_fault: &Fault) -> Bytes {
    todo!()
}

/// An error of our own inside a stream: one whole event.
#[must_use]
pub fn error_event(_fault: &Fault) -> Bytes {
    todo!()
}

/// The headers of a request to a provider: those of the client's that are allowed, and our credential.
#[must_use]
pub fn request_headers(_client: &HeaderMap, _credential: Option<&Secret>) -> HeaderMap {
    todo!()
}

/// The headers of a provider's answer that the client may see.
#[must_use]
pub fn answer_headers(_provider: &HeaderMap) -> HeaderMap {
    todo!()
}
