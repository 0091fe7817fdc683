//! Phase: one try at one target, until its commit point or its failure.
//!
//! Up to the commit point nothing has reached the client, so a failure here is invisible: events
//! before the first content, and plain answers while they are small, are held back for that.

mod failed;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_http::header::{self, HeaderMap};
use actix_http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout_at;

pub(super) use failed::Failed;

use super::receive::Hold;
use super::settle::{Account, Admitted, Trial};
use super::shared::Worker;
use super::tap::Tap;
use crate::domain::Headers;
use crate::provider::{Endpoint, Envelope, StreamFault, openai};
use crate::snapshot::{Key, Pool, Target};
use crate::upstream::{Answer, AnswerBody, Call};

/// Held back at most: events before content, or a plain answer that may still fail unseen.
const MOST_HELD: usize = 64 * 1024;

/// All that a request's attempts share.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) endpoint: Endpoint,
    pub(super) headers: HeaderMap,
    pub(super) key: Arc<Key>,
    pub(super) pool: Arc<Pool>,
    pub(super) envelope: Envelope,
    pub(super) body: Bytes,
    /// The client's own user, in the body or in a header.
    pub(super) user: Option<Arc<str>>,
    pub(super) client_ip: IpAddr,
    /// Charged to the node's budget as long as an attempt may still need the body.
    pub(super) _hold: Hold,
    /// When the whole request must be over.
    pub(super) deadline: Instant,
}

/// An answer at its commit point: from here on it belongs to the client.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What the provider announced of the body's length.
    pub(super) len: Option<u64>,
    /// What was held back, in order.
    pub(super) held: Bytes,
    /// The rest of the body; none where all of it is held.
    pub(super) rest: Option<AnswerBody>,
    /// A fault that came in the same piece as the first content.
    pub(super) fault: Option<StreamFault>,
    pub(super) trial: Trial,
}

impl Committed {
    /// Whether it can go on behind a head that promised events: it is neither a plain answer nor
    /// a stream that only its own headers explain.
    pub(super) fn is_events(&self) -> bool {
        self.trial.tap.as_ref().is_some_and(Tap::may_append)
    }
}

impl Exchange {
    /// Whether this attempt asks for usage that the client did not ask for.
    fn asks_usage(&self, target: &Target) -> bool {
        target.provider.usage_in_stream && self.envelope.usage_can_be_asked()
    }

    /// Tries one target.
    ///
    /// # Errors
    /// How it failed, with the answer or fault to show if nothing better follows.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection; the trial records what was used.
    pub(super) async fn attempt(
        &self,
        target: &Arc<Target>,
        admitted: Option<Admitted>,
        account: &mut Account,
    ) -> Result<Committed, Failed> {
        let asks_usage = self.asks_usage(target);
        let payload = self.envelope.rewrite(&self.body, target.model.as_deref(), asks_usage);
        let mut trial = account.attempt(target, payload.len() as u64, admitted);
        let timeouts = &self.pool.timeouts;
        let clock = if self.envelope.stream { timeouts.first_token } else { timeouts.answer };
        let deadline = (Instant::now() + clock).min(self.deadline);
        let provider = &target.provider;
        let mut headers = openai::request_headers(&self.headers, provider.credential.as_ref());
        if provider.trace_context {
            trial.pass_trace(&self.headers, &mut headers);
        }
        let call = Call {
            method: Method::POST,
            path: format!("{}{}", provider.base.prefix, self.endpoint.path()),
            headers,
            body: payload,
            connect: timeouts.connect,
        };
        let sent = self.worker.upstream.send(&provider.base.origin, call);
        let answer = match timeout_at(deadline.into(), sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failed::send(&error, &mut trial)),
            Err(_) => return Err(Failed::timeout(clock, self.deadline, &mut trial)),
        };
        trial.answered(answer.status.as_u16());
        if !answer.status.is_success() {
            return Err(Box::pin(Failed::answered(answer, deadline, &mut trial)).await);
        }
        if !openai::is_answer(answer.status, &answer.headers) {
            return Err(Failed::foreign(&mut trial));
        }
        self.hold(answer, asks_usage, deadline, trial).await
    }

    /// Holds the answer back until its commit point.
    async fn hold(
        &self,
        answer: Answer,
        asks_usage: bool,
        first_token: Instant,
        mut trial: Trial,
    ) -> Result<Committed, Failed> {
        let Answer { status, headers: provider_headers, body: mut rest } = answer;
        let mut headers = openai::answer_headers(&provider_headers);
        let choices = self.envelope.choices;
        // Comments cannot stand between events that the client gets compressed.
        let edits = asks_usage || self.pool.heartbeat.is_some();
        let tap = Tap::new(&mut headers, edits, || {
            openai::Stream::new(self.endpoint, choices, asks_usage)
        });
        let is_stream = tap.is_stream();
        let len = if is_stream { None } else { content_length(&provider_headers) };
        let tap = trial.tap.insert(tap);
        let timeouts = &self.pool.timeouts;
        let mut held = Held::default();
        let (rest, fault) = loop {
            let idle = Instant::now() + timeouts.idle;
            let (deadline, clock) = if is_stream {
                (first_token, timeouts.first_token)
            } else {
                (idle.min(self.deadline), timeouts.idle)
            };
            let piece = match timeout_at(deadline.into(), rest.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(_))) => return Err(Failed::broken(&mut trial)),
                Err(_) => return Err(Failed::timeout(clock, self.deadline, &mut trial)),
                Ok(None) => match tap.finish() {
                    Ok(last) => {
                        held.push(last);
                        // A success without a byte answers nothing that can be asked here.
                        if held.len == 0 {
                            return Err(Failed::broken(&mut trial));
                        }
                        break (None, None);
                    }
                    Err(fault) => return Err(Failed::stream(fault, &mut trial)),
                },
            };
            let progress = tap.feed(piece);
            held.push(progress.bytes);
            // A stream that cannot be read commits with its first byte, so that it still streams.
            if is_stream && progress.content {
                trial.first_content();
                break (Some(rest), progress.fault);
            }
            if let Some(fault) = progress.fault {
                return Err(Failed::stream(fault, &mut trial));
            }
            if held.len > MOST_HELD {
                break (Some(rest), None);
            }
        };
        let held = held.into_bytes();
        Ok(Committed { status, headers, len, held, rest, fault, trial })
    }
}

/// Pieces held back; joined only where there is more than one.
#[derive(Default)]
struct Held {
    first: Bytes,
    more: BytesMut,
    len: usize,
}

impl Held {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&piece);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

fn content_length(headers: &Headers) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
