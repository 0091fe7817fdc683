//! The body of an answer as the caller sees it.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::Payload;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::BodyError;
use super::io::{End, Exchange};
use super::site::Permit;

/// Pieces that are ready are joined until they reach this size: a stream of tiny chunks would
/// otherwise cost everything behind it once for each, and a system call in the worst case.
const JOIN: usize = 8 * 1024;

/// The body of an answer: a stream of non-empty pieces, with `None` only after the last byte of a
/// complete body. Dropping it before its end closes the connection.
pub struct AnswerBody {
    source: Option<Source>,
    /// What ended the pieces that were joined last.
    failed: Option<BodyError>,
}

/// What is there until the body ends.
struct Source {
    payload: Payload,
    exchange: Rc<Exchange>,
    _permit: Permit,
}

impl AnswerBody {
    pub(super) fn new(payload: Payload, exchange: Rc<Exchange>, permit: Permit) -> Self {
        Self { source: Some(Source { payload, exchange, _permit: permit }), failed: None }
    }

    /// The next piece as it came. The connection's own view of the end is the one that counts:
    /// the codec takes any close for an end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let Some(source) = &mut self.source else { return Poll::Ready(None) };
            let failed = match ready!(Pin::new(&mut source.payload).poll_next(cx)) {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => return Poll::Ready(Some(Ok(piece))),
                Some(Err(_)) => true,
                None => false,
            };
            let end = source.exchange.end();
            self.source = None;
            return Poll::Ready(match end {
                End::Complete if !failed => None,
                End::Broken | End::Open => Some(Err(BodyError::Truncated)),
                End::Complete | End::Malformed => Some(Err(BodyError::Malformed)),
            });
        }
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let first = match ready!(this.poll_piece(cx)) {
            Some(Ok(first)) if first.len() < JOIN => first,
            other => return Poll::Ready(other),
        };
        let Poll::Ready(Some(second)) = this.poll_piece(cx) else {
            return Poll::Ready(Some(Ok(first)));
        };
        let mut joined = BytesMut::new();
        let mut next = Poll::Ready(Some(second));
        loop {
            match next {
                Poll::Ready(Some(Ok(piece))) if joined.is_empty() => {
                    joined.reserve(JOIN.max(first.len() + piece.len()));
                    joined.extend_from_slice(&first);
                    joined.extend_from_slice(&piece);
                }
                Poll::Ready(Some(Ok(piece))) => joined.extend_from_slice(&piece),
                Poll::Ready(Some(Err(error))) => {
                    this.failed = Some(error);
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
            if joined.len() >= JOIN {
                break;
            }
            next = this.poll_piece(cx);
        }
        Poll::Ready(Some(Ok(if joined.is_empty() { first } else { joined.freeze() })))
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.source.as_ref().map(|source| source.exchange.end());
        f.debug_struct("AnswerBody").field("end", &end).finish_non_exhaustive()
    }
}
