//! What is learnt of an answer while it passes by: its content, its usage, whether it is complete.
//!
//! Providers are asked for uncompressed answers. One that compresses all the same is decoded beside
//! its untouched bytes, unless something must be taken out of them; an encoding that cannot be
//! decoded passes unread, and its usage is an estimate.

use actix_http::header::{self, HeaderMap};
use bytes::Bytes;

use crate::domain::Usage;
use crate::provider::openai::{Stream, UsageScan};
use crate::provider::{Decoder, Progress, StreamFault};

/// A watcher over the body of one answer.
#[derive(Debug)]
pub(super) struct Tap {
    watch: Watch,
    /// Rare and large.
    decoder: Option<Box<Decoder>>,
    /// Whether the client gets what was decoded instead of what came.
    replaces: bool,
    /// Whether it is a stream of events, readable or not.
    is_stream: bool,
    bytes: u64,
}

#[derive(Debug)]
enum Watch {
    Events(Box<Stream>),
    Json(UsageScan),
    Nothing,
}

/// How an answer is to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Known,
    Unknown,
}

impl Tap {
    /// A tap for an answer with these headers. `events` makes the state of a stream of events; it
    /// is asked only where the answer is one. `edits` says that events will be taken out or put in
    /// between. A `content-encoding` that the client will not get is removed from `headers`.
    pub(super) fn new(
        headers: &mut HeaderMap,
        edits: bool,
        events: impl FnOnce() -> Stream,
    ) -> Self {
        let of = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let content_type = of(header::CONTENT_TYPE);
        let is = |kind: &str| {
            content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        let (is_events, is_json) = (is("text/event-stream"), is("application/json"));
        let encoding = of(header::CONTENT_ENCODING);
        let decoder = Decoder::for_encoding(encoding);
        let encoding = match &decoder {
            _ if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") => {
                Encoding::Identity
            }
            Some(_) => Encoding::Known,
            None => Encoding::Unknown,
        };
        let watch = match encoding {
            Encoding::Unknown => Watch::Nothing,
            _ if is_events => Watch::Events(Box::new(events())),
            _ if is_json => Watch::Json(UsageScan::default()),
            _ => Watch::Nothing,
        };
        let decoder = match &watch {
            Watch::Nothing => None,
            _ => decoder.filter(|_| encoding == Encoding::Known).map(Box::new),
        };
        let replaces = is_events && edits && decoder.is_some();
        if replaces {
            headers.remove(header::CONTENT_ENCODING);
        }
        Self { watch, decoder, replaces, is_stream: is_events, bytes: 0 }
    }

    /// True for a stream of events, one that cannot be read included.
    pub(super) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// True for a stream of events that can be read.
    pub(super) fn is_events(&self) -> bool {
        matches!(self.watch, Watch::Events(_))
    }

    /// Whether an event of our own may follow what the client has got.
    pub(super) fn may_append(&self) -> bool {
        self.is_events() && (self.decoder.is_none() || self.replaces)
    }

    /// Takes the next bytes of the body; the answer says what goes to the client.
    pub(super) fn feed(&mut self, piece: Bytes) -> Progress {
        self.bytes += piece.len() as u64;
        let decoded = match &mut self.decoder {
            None => piece.clone(),
            Some(decoder) => match decoder.feed(&piece) {
                Ok(decoded) => decoded,
                Err(_) if self.is_events() => {
                    let fault = Some(StreamFault::Malformed);
                    return Progress { bytes: Bytes::new(), content: false, fault };
                }
                Err(_) => {
                    // It was read for its usage only, and passes all the same.
                    (self.watch, self.decoder) = (Watch::Nothing, None);
                    piece.clone()
                }
            },
        };
        let beside = self.decoder.is_some() && !self.replaces;
        match &mut self.watch {
            Watch::Events(stream) => {
                let mut progress = stream.feed(decoded);
                if beside {
                    progress.bytes = piece;
                }
                progress
            }
            Watch::Json(scan) => {
                scan.feed(&decoded);
                Progress { bytes: piece, content: true, fault: None }
            }
            Watch::Nothing => Progress { bytes: piece, content: true, fault: None },
        }
    }

    /// The body ended cleanly; what is still to be sent.
    ///
    /// # Errors
    /// The stream of events is not complete, or the body ends within its JSON.
    pub(super) fn finish(&mut self) -> Result<Bytes, StreamFault> {
        let may_append = self.may_append();
        match &mut self.watch {
            Watch::Events(stream) => {
                stream.finish().map(|rest| if may_append { rest } else { Bytes::new() })
            }
            // Where a body ends with its connection, nothing else tells a crash from the end.
            Watch::Json(scan) if scan.is_open() => Err(StreamFault::Truncated),
            Watch::Json(_) | Watch::Nothing => Ok(Bytes::new()),
        }
    }

    /// True once a stream's terminal event has passed by and nothing behind it belongs to the
    /// answer. Where the client gets compressed bytes, those that end the compression still do.
    pub(super) fn is_complete(&self) -> bool {
        let complete = matches!(&self.watch, Watch::Events(stream) if stream.is_complete());
        complete && self.may_append()
    }

    /// The provider's own figures.
    pub(super) fn usage(&self) -> Option<Usage> {
        match &self.watch {
            Watch::Events(stream) => stream.usage(),
            Watch::Json(scan) => scan.usage(),
            Watch::Nothing => None,
        }
    }

    /// Bytes of generated text, or of the whole answer where it cannot be read.
    pub(super) fn text_bytes(&self) -> u64 {
        match &self.watch {
            Watch::Events(stream) => stream.text_bytes(),
            Watch::Json(_) | Watch::Nothing => self.bytes,
        }
    }
}
