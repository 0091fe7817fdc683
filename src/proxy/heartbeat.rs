//! Keeping a client's connection alive before its answer has begun.
//!
//! Where a pool asks for a heartbeat, the head of a stream is given after the first silent period
//! and comments follow, so that balancers with short idle clocks do not cut a thinking model off.
//! The price: a failure of all attempts can then only be told inside the stream.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{self, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::attempt::{Committed, Failed};
use super::relay::{Clocks, PING, relay};
use super::request::{Aborted, Body, Pieces, Reply};
use super::settle::{Account, Status};
use crate::provider::openai;

/// All attempts of a request, on their own.
pub(super) type Attempts = Pin<Box<dyn Future<Output = (Result<Committed, Failed>, Account)>>>;

/// The reply of a request whose attempts are still under way.
pub(super) fn reply(
    attempts: Attempts,
    status: &Status,
    period: Duration,
    clocks: Clocks,
) -> Reply {
    status.set(StatusCode::OK.as_u16());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let waiting = stream::unfold(State::Waiting(attempts), move |state| async move {
        step(state, period, clocks).await
    });
    let first: Pieces = Box::pin(stream::iter([Ok(PING)]).chain(waiting));
    Reply { status: StatusCode::OK, headers, body: Body::Stream { len: None, pieces: first } }
}

enum State {
    Waiting(Attempts),
    Relaying(Pieces),
    Failed,
}

async fn step(
    state: State,
    period: Duration,
    clocks: Clocks,
) -> Option<(Result<Bytes, Aborted>, State)> {
    let mut state = state;
    loop {
        state = match state {
            State::Waiting(mut attempts) => match timeout(period, &mut attempts).await {
                Err(_) => return Some((Ok(PING), State::Waiting(attempts))),
                Ok((Ok(committed), account)) if committed.is_events() => {
                    match relay(committed, account, clocks) {
                        Body::Whole(bytes) => State::Relaying(Box::pin(stream::iter([Ok(bytes)]))),
                        Body::Stream { pieces, .. } => State::Relaying(pieces),
                    }
                }
                Ok((result, account)) => {
                    let failed = match result {
                        Ok(mut committed) => Failed::no_stream(&mut committed.trial),
                        Err(failed) => failed,
                    };
                    return Some((Ok(last_event(failed, account)), State::Failed));
                }
            },
            State::Relaying(mut pieces) => {
                let item = pieces.next().await?;
                return Some((item, State::Relaying(pieces)));
            }
            State::Failed => {
                return Some((Err(Aborted), State::Relaying(Box::pin(stream::empty()))));
            }
        };
    }
}

/// How a request fails whose client was promised a stream: the provider's own error where there is
/// one to pass on, as an event.
fn last_event(failed: Failed, mut account: Account) -> Bytes {
    account.end(failed.outcome());
    let own = match &failed.answer {
        Some(Reply { body: Body::Whole(body), .. }) => openai::error_as_event(body),
        _ => None,
    };
    own.unwrap_or_else(|| openai::error_event(&failed.fault))
}
