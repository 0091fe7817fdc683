//! The state machine of a streamed answer: what goes on to the client, whether it is complete, what
//! it used, and why it failed.
//!
//! An answer is complete when its terminal event came, or when every choice has a finish reason
//! and the body ended cleanly. Everything else is a failure, however much text has come: a
//! truncated answer is never presented as a success.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::alike::Alike;
use super::chunk::{Chunk, Kind};
use crate::domain::Usage;
use crate::provider::output::Output;
use crate::provider::{Endpoint, Event, Progress, Scanner, StreamFault};

/// What ends a stream of choices.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The state of one answer that is a stream of events.
#[derive(Debug)]
pub struct Stream {
    scanner: Scanner,
    kind: Kind,
    alike: Alike,
    hide_usage: bool,
    finished: Finished,
    phase: Phase,
    content: bool,
    usage: Option<Usage>,
    text_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// `[DONE]` came; nothing after it counts.
    Done,
    Failed,
}

/// Which choices are finished.
#[derive(Debug)]
struct Finished {
    seen: SmallVec<[u64; 2]>,
    count: u32,
    wanted: u32,
}

// === impl Stream ===

impl Stream {
    /// A stream that answers a request to `endpoint` for `choices` choices. `hide_usage` takes out
    /// what asking for usage added: the last chunk and the null fields.
    #[must_use]
    pub fn new(endpoint: Endpoint, choices: u32, hide_usage: bool) -> Self {
        Self {
            scanner: Scanner::new(),
            kind: Kind::of(endpoint),
            alike: Alike::default(),
            hide_usage: hide_usage && endpoint.usage_is_optional(),
            finished: Finished { seen: SmallVec::new(), count: 0, wanted: choices.max(1) },
            phase: Phase::Open,
            content: false,
            usage: None,
            text_bytes: 0,
        }
    }

    /// Takes the next bytes of the body, split anywhere. At most one incomplete event is kept back.
    /// After `[DONE]` and after a fault nothing is taken any more.
    ///
    /// The first `content` of an answer is also reported where an answer without any content
    /// comes to its end: that is an answer too.
    pub fn feed(&mut self, chunk: Bytes) -> Progress {
        let mut progress = Progress::default();
        if self.phase != Phase::Open {
            return progress;
        }
        let mut output = Output::new(chunk.clone());
        self.scanner.feed(chunk);
        while self.phase == Phase::Open {
            let event = match self.scanner.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    progress.fault = Some(StreamFault::TooLarge);
                    break;
                }
            };
            match self.take(&event, &mut output) {
                Ok(content) => progress.content |= content,
                Err(fault) => {
                    progress.fault = Some(fault);
                    break;
                }
            }
        }
        if progress.fault.is_some() {
            self.phase = Phase::Failed;
        }
        progress.bytes = output.finish();
        progress
    }

    /// The body ended cleanly: what is still to be sent to the client (an event that lacked its
    /// last blank line, or the `[DONE]` that a provider left out although every choice is finished).
    ///
    /// # Errors
    /// `Truncated` where the answer is not complete; `Provider` where its last words are an error.
    pub fn finish(&mut self) -> Result<Bytes, StreamFault> {
        let rest = self.last_event().inspect_err(|_| self.phase = Phase::Failed)?;
        let complete =
            self.phase == Phase::Done || self.phase == Phase::Open && self.finished.all();
        if !complete {
            self.phase = Phase::Failed;
            return Err(StreamFault::Truncated);
        }
        if self.phase == Phase::Done || self.kind == Kind::Typed {
            return Ok(rest);
        }
        self.phase = Phase::Done;
        let mut bytes = BytesMut::from(rest);
        bytes.put_slice(DONE);
        Ok(bytes.freeze())
    }

    /// True once the terminal event (`[DONE]`, or the typed `.done`/`.completed`) was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self.phase {
            Phase::Done => true,
            Phase::Open => self.kind == Kind::Typed && self.finished.all(),
            Phase::Failed => false,
        }
    }

    /// The provider's own figures, once they came.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Bytes of generated text seen so far, for an estimate where no figures came.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// What stands at the end of the body without its blank line, made whole.
    fn last_event(&mut self) -> Result<Bytes, StreamFault> {
        let Some(event) =
            self.scanner.finish().filter(|event| self.phase == Phase::Open && event.fields)
        else {
            return Ok(Bytes::new());
        };
        let data = event.data.as_deref().unwrap_or_default();
        if data.trim_ascii().is_empty() {
            let complete = self.is_complete();
            return if complete { Ok(Bytes::new()) } else { Err(StreamFault::Truncated) };
        }
        let mut output = Output::new(event.raw.clone());
        self.take(&event, &mut output).map_err(|fault| match fault {
            // What is not JSON at the very end was cut off.
            StreamFault::Malformed => StreamFault::Truncated,
            fault => fault,
        })?;
        let mut bytes = BytesMut::from(output.finish());
        if !bytes.is_empty() {
            let line_ended = bytes.ends_with(b"\n") || bytes.ends_with(b"\n\r");
            bytes.put_slice(if line_ended { b"\n" } else { b"\n\n" });
        }
        Ok(bytes.freeze())
    }

    /// Takes one event: writes what goes on, and tells whether there was content.
    fn take(&mut self, event: &Event, output: &mut Output) -> Result<bool, StreamFault> {
        let data = event.data.as_deref().unwrap_or_default().trim_ascii();
        let ended = self.is_complete();
        if data == b"[DONE]" {
            self.phase = Phase::Done;
            output.push(&event.raw);
            return Ok(!std::mem::replace(&mut self.content, true));
        }
        if data.is_empty() {
            // A comment, a heartbeat, or fields without data.
            output.push(&event.raw);
            return Ok(false);
        }
        if ended {
            // After a typed end only `[DONE]` may come; anything else is not part of the answer.
            return Ok(false);
        }
        let says_error = event.kind.as_deref() == Some(b"error");
        let chunk = self.alike.read(self.kind, event.data.as_deref().unwrap_or_default());
        let status = match &chunk {
            Ok(chunk) => chunk.error.or(says_error.then_some(None)),
            Err(_) if says_error => Some(None),
            Err(_) => return Err(StreamFault::Malformed),
        };
        if let Some(status) = status {
            return Err(StreamFault::Provider { event: event.raw.clone(), status });
        }
        let Ok(chunk) = chunk else { return Err(StreamFault::Malformed) };
        self.usage = chunk.usage.or(self.usage);
        self.text_bytes = self.text_bytes.saturating_add(chunk.text_bytes);
        for &choice in &chunk.finished {
            match self.kind {
                Kind::Choices => self.finished.insert(choice),
                Kind::Typed => self.finished.count = self.finished.count.saturating_add(1),
            }
        }
        pass(event, chunk, self.hide_usage, output);
        // The finish of an answer that has no content is all that will ever come.
        let content =
            chunk.content || !self.content && !chunk.finished.is_empty() && self.finished.all();
        self.content |= content;
        Ok(content)
    }
}

/// Writes an event, without what the question for usage added where that is to be hidden.
fn pass(event: &Event, chunk: &Chunk, hide_usage: bool, output: &mut Output) {
    match &chunk.usage_at {
        Some(_) if hide_usage && chunk.only_usage => {}
        Some(place) if hide_usage => {
            let place = event.place(place.clone());
            output.push(event.raw.get(..place.start).unwrap_or_default());
            output.push(event.raw.get(place.end..).unwrap_or_default());
        }
        _ => output.push(&event.raw),
    }
}

// === impl Finished ===

impl Finished {
    /// Beyond this many choices only `[DONE]` ends a stream; it bounds the memory of one.
    const MAX: u32 = 1 << 16;

    fn insert(&mut self, choice: u32) {
        if choice >= self.wanted.min(Self::MAX) {
            return;
        }
        let index = usize::try_from(choice / 64).unwrap_or(0);
        if self.seen.len() <= index {
            self.seen.resize(index + 1, 0);
        }
        let bit = 1 << (choice % 64);
        if let Some(word) = self.seen.get_mut(index).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.count += 1;
        }
    }

    fn all(&self) -> bool {
        self.count >= self.wanted
    }
}

#[cfg(test)]
mod tests;
