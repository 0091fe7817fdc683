//! Bodies on their way through actix: the request's in, the reply's out.
//!
//! Four traps of actix's dispatcher are avoided here. An empty chunk costs a turn of the worker
//! and says nothing, so none is handed on. A body that always has a next piece would keep the
//! worker to itself, so it gives way now and then. And a body that fails takes all bytes of the
//! same turn with it, the head included, so a failure waits until what was before it is with the
//! kernel. And a handler that asks for the body before it was handed over, as every one does, is
//! woken by it for a turn in which nothing is left to do.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_http::body::{BodySize, MessageBody};
use actix_http::error::PayloadError;
use actix_web::dev::Payload;
use bytes::Bytes;
use futures_core::Stream;

use super::connection::{Conn, Serving};
use crate::proxy::{Aborted, Body};

/// The body of a request, as it comes; no piece is empty.
pub struct RequestBody {
    payload: Payload,
    conn: Rc<Conn>,
    broken: Rc<Cell<bool>>,
    /// It was asked for before.
    asked: bool,
}

impl RequestBody {
    /// `broken` is set when the framing turns out not to be HTTP.
    pub(super) fn new(payload: Payload, conn: Rc<Conn>, broken: Rc<Cell<bool>>) -> Self {
        Self { payload, conn, broken, asked: false }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The first time, actix has not handed over anything yet. It asks the handler again in the
        // same turn, once it has, and as often as it hands over more: nobody needs to be woken.
        let mut nobody = Context::from_waker(Waker::noop());
        let cx = if std::mem::replace(&mut self.asked, true) { cx } else { &mut nobody };
        loop {
            let piece = ready!(Pin::new(&mut self.payload).poll_next(cx));
            match &piece {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(_)) => {}
                // actix calls broken framing and a client that left by the same name. One that
                // left is owed no answer: actix drops the request at the end of this turn, and it
                // is recorded as what it is.
                Some(Err(_)) if self.conn.is_gone() => return Poll::Pending,
                Some(Err(_)) => self.broken.set(true),
                None => self.conn.body_read(),
            }
            return Poll::Ready(piece);
        }
    }
}

/// After so many pieces in a row, other connections of the worker get their turn.
const MAX_IN_A_ROW: u8 = 64;

/// The body of a reply under actix. The request counts as being served until it is dropped.
pub(super) struct ReplyBody {
    state: State,
    in_a_row: u8,
    serving: Serving,
}

enum State {
    Whole(Bytes),
    Stream {
        len: Option<u64>,
        pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>>>>,
    },
    /// The failure that is due once everything before it is with the kernel.
    Failing(Aborted),
    Done,
}

impl ReplyBody {
    pub(super) fn new(body: Body, serving: Serving) -> Self {
        let state = match body {
            Body::Whole(bytes) => State::Whole(bytes),
            Body::Stream { len, pieces } => State::Stream { len, pieces },
        };
        Self { state, in_a_row: 0, serving }
    }
}

impl MessageBody for ReplyBody {
    type Error = Aborted;

    fn size(&self) -> BodySize {
        match &self.state {
            State::Whole(bytes) => BodySize::Sized(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            State::Stream { len: Some(len), .. } => BodySize::Sized(*len),
            State::Stream { len: None, .. } | State::Failing(_) => BodySize::Stream,
            State::Done => BodySize::Sized(0),
        }
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Aborted>>> {
        let this = &mut *self;
        match &mut this.state {
            State::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.state = State::Done;
                Poll::Ready(Some(Ok(bytes)))
            }
            State::Stream { .. } if this.in_a_row == MAX_IN_A_ROW => {
                this.in_a_row = 0;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Stream { pieces, .. } => match pieces.as_mut().poll_next(cx) {
                Poll::Pending => {
                    this.in_a_row = 0;
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {
                    debug_assert!(false, "a reply yields no empty piece");
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(piece))) => {
                    this.in_a_row += 1;
                    Poll::Ready(Some(Ok(piece)))
                }
                Poll::Ready(Some(Err(aborted))) => {
                    // Drops the pieces: nothing of the request goes on.
                    this.state = State::Failing(aborted);
                    this.serving.conn().unflushed();
                    this.poll_failure(cx, aborted)
                }
                Poll::Ready(None) => {
                    this.state = State::Done;
                    Poll::Ready(None)
                }
            },
            State::Failing(aborted) => {
                let aborted = *aborted;
                this.poll_failure(cx, aborted)
            }
            State::Done => Poll::Ready(None),
        }
    }
}

impl ReplyBody {
    fn poll_failure(
        &self,
        cx: &Context<'_>,
        aborted: Aborted,
    ) -> Poll<Option<Result<Bytes, Aborted>>> {
        ready!(self.serving.conn().poll_flushed(cx));
        Poll::Ready(Some(Err(aborted)))
    }
}
