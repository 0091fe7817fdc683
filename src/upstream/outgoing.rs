//! The body of a request on its way out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::Method;
use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::Call;
use crate::domain::Payload;

/// How much is handed to `awc` at a time. It copies what it is given into its write buffer, so a
/// body given whole would be in memory twice for every attempt.
const SLICE: usize = 64 * 1024;

/// A body, slice by slice.
#[derive(Debug)]
pub(super) struct Outgoing {
    payload: Payload,
    size: BodySize,
    piece: usize,
    at: usize,
}

impl Outgoing {
    /// The body of `call`. An empty one is announced only where the method expects a body.
    pub(super) fn new(call: &Call) -> Self {
        let bodyless = matches!(call.method, Method::GET | Method::HEAD | Method::DELETE);
        let size = match call.body.len() {
            0 if bodyless => BodySize::None,
            len => BodySize::Sized(len as u64),
        };
        Self { payload: call.body.clone(), size, piece: 0, at: 0 }
    }
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let Some(piece) = this.payload.pieces().get(this.piece) else { return Poll::Ready(None) };
        let end = piece.len().min(this.at + SLICE);
        let slice = piece.slice(this.at..end);
        (this.piece, this.at) =
            if end == piece.len() { (this.piece + 1, 0) } else { (this.piece, end) };
        Poll::Ready(Some(Ok(slice)))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    fn outgoing(method: Method, body: Payload) -> Outgoing {
        let headers = actix_http::header::HeaderMap::new();
        Outgoing::new(&Call { method, path: "/".into(), headers, body, connect: Duration::ZERO })
    }

    // T27
    #[test]
    fn a_big_body_goes_out_in_small_slices_of_the_same_memory() {
        let big = Bytes::from(vec![7; 16 * 1024 * 1024 + 5]);
        let mut payload = Payload::from(Bytes::from_static(b"{"));
        payload.push(big.clone());
        let len = payload.len() as u64;
        let mut body = outgoing(Method::POST, payload);
        assert_eq!(body.size(), BodySize::Sized(len));
        let memory = big.as_ptr_range();
        let mut sent = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(slice))) = Pin::new(&mut body).poll_next(&mut cx) {
            assert!(slice.len() <= SLICE && !slice.is_empty());
            assert!(slice == "{" || memory.contains(&slice.as_ptr()), "a copy");
            sent += slice.len() as u64;
        }
        assert_eq!(sent, len);
        assert!(body.try_into_bytes().is_err(), "awc must not get it whole");
    }

    #[test]
    fn an_empty_body_is_announced_where_one_is_expected() {
        assert_eq!(outgoing(Method::GET, Payload::new()).size(), BodySize::None);
        assert_eq!(outgoing(Method::POST, Payload::new()).size(), BodySize::Sized(0));
    }
}
