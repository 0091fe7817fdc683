//! What a protocol decides to answer, before it becomes HTTP.

use std::iter;
use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use super::body::{Beat, Body};
use super::config::LONGEST;
use super::fault::Fault;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// Its connection is reset.
    Reset,
    /// Nothing happens, for a very long time.
    Silence,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: StatusCode,
    /// What the body is.
    pub(super) content_type: &'static str,
    /// Headers beyond those that every answer has.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the answer's head waits.
    pub(super) after: Duration,
    /// The body.
    pub(super) body: Body,
}

impl Reply {
    /// A body that is ready, after a while, unless the fault spoils it.
    pub(super) fn whole(
        content_type: &'static str,
        bytes: impl Into<Bytes>,
        after: Duration,
        fault: Option<Fault>,
    ) -> Self {
        let body = spoilt(bytes.into(), fault);
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), after, body }
    }

    /// A JSON body that is ready.
    pub(super) fn json(text: String, after: Duration, fault: Option<Fault>) -> Self {
        Self::whole("application/json", text, after, fault)
    }

    /// A stream of events.
    pub(super) fn events(script: impl Iterator<Item = Beat> + 'static) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/event-stream; charset=utf-8",
            headers: Vec::new(),
            after: Duration::ZERO,
            body: Body::chunked(script),
        }
    }
}

/// A whole body as a fault leaves it. The faults of streams leave it alone.
fn spoilt(bytes: Bytes, fault: Option<Fault>) -> Body {
    let len = bytes.len();
    let half = || bytes.slice(..len / 2);
    let silence = match fault {
        Some(Fault::Malformed) => return Body::Whole(half()),
        Some(Fault::Cut) => Duration::ZERO,
        Some(Fault::Stall) => LONGEST,
        _ => return Body::Whole(bytes),
    };
    let sent = half();
    let first = (!sent.is_empty()).then_some(Beat::Send(sent));
    Body::sized(first.into_iter().chain([Beat::Wait(silence), Beat::Cut]), len)
}

/// The beats of an error in the middle of a stream that only the connection tells of.
pub(super) fn broken_off(fault: Fault) -> impl Iterator<Item = Beat> {
    let silence = if fault == Fault::Stall { LONGEST } else { Duration::ZERO };
    iter::once(Beat::Wait(silence)).chain(iter::once(Beat::Cut))
}
