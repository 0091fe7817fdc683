//! The body of an answer as the caller sees it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::BodyError;
use super::exchange::Exchange;

/// The body of an answer: a stream of non-empty pieces, with `None` only after the last byte of a
/// complete body. Dropping it before its end closes the connection.
pub struct AnswerBody {
    /// What is there until the body ends.
    exchange: Option<Exchange>,
}

impl AnswerBody {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self { exchange: Some(exchange) }
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        let next = ready!(exchange.poll_data(cx));
        if !matches!(next, Some(Ok(_))) {
            this.exchange = None;
        }
        Poll::Ready(next)
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("open", &self.exchange.is_some()).finish_non_exhaustive()
    }
}
