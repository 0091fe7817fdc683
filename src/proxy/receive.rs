//! Phase: receive the body, once, into one buffer that all attempts share.
//!
//! Bounded three ways: by the size of one body, by the bytes of all bodies in flight on the node,
//! and by time. Bytes are charged as they arrive, not as they are announced, so that a client that
//! announces much and sends nothing holds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_http::error::PayloadError;
use actix_http::header::{self, HeaderMap};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::shared::Config;
use crate::domain::{Code, Fault};

/// However patient the stall clock is with a dripping client: no body takes longer than a whole
/// request may.
const LONGEST_UPLOAD: Duration = Duration::from_secs(600);
/// The first buffer of a body whose length was not announced.
const FIRST_BUFFER: usize = 8 * 1024;
/// What a client is told to wait when the node is full of bodies.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// Bytes of request bodies that may be in flight on the node.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    in_use: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, in_use: AtomicU64::new(0) }
    }

    pub(super) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }
}

/// Bytes charged to the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Hold {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Charges more bytes; false, and nothing charged, where the budget has no room for them.
    fn grow(&mut self, bytes: u64) -> bool {
        let limit = self.budget.limit;
        let room = |in_use: u64| in_use.checked_add(bytes).filter(|sum| *sum <= limit);
        let counted = &self.budget.in_use;
        if counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.in_use.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that is wholly here.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    /// Lives as long as the bytes are needed.
    pub(super) hold: Hold,
}

/// Receives the whole body.
///
/// # Errors
/// `body_too_large`, `node_busy`, `request_timeout`, or `invalid_request` where the client left or
/// its framing is broken.
pub(super) async fn receive<S>(
    config: Config,
    budget: &Arc<Budget>,
    headers: &HeaderMap,
    mut body: S,
) -> Result<Received, Fault>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "compressed request bodies are not served; send the body as it is";
        return Err(Fault::new(Code::InvalidRequest, message));
    }
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > config.body_limit) {
        return Err(too_large(config.body_limit));
    }
    let capacity = announced.and_then(|length| usize::try_from(length).ok());
    let mut bytes = BytesMut::with_capacity(capacity.unwrap_or(FIRST_BUFFER));
    let mut hold = Hold::new(budget);
    let deadline = Instant::now() + LONGEST_UPLOAD;
    loop {
        let piece = match timeout(config.body_stall, body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => {
                let message = "the request body broke off or its framing is broken";
                return Err(Fault::new(Code::InvalidRequest, message));
            }
            Ok(None) => return Ok(Received { bytes: bytes.freeze(), hold }),
            Err(_) => return Err(too_slow(config.body_stall)),
        };
        if (bytes.len() + piece.len()) as u64 > config.body_limit {
            return Err(too_large(config.body_limit));
        }
        if !hold.grow(piece.len() as u64) {
            let message = "too many request bytes in flight on this node; retry shortly";
            return Err(Fault::new(Code::NodeBusy, message).retry_after(BUSY_WAIT));
        }
        bytes.extend_from_slice(&piece);
        if Instant::now() > deadline {
            return Err(too_slow(LONGEST_UPLOAD));
        }
    }
}

fn too_large(limit: u64) -> Fault {
    let message = format!("the request body is larger than {limit} bytes (FLOTILLA_BODY_LIMIT)");
    Fault::new(Code::BodyTooLarge, message)
}

fn too_slow(limit: Duration) -> Fault {
    let message = format!("the request body did not arrive within {} ms", limit.as_millis());
    Fault::new(Code::RequestTimeout, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const CONFIG: Config =
        Config { body_limit: 10, body_budget: 16, body_stall: Duration::from_millis(20) };

    async fn receive_pieces(
        budget: &Arc<Budget>,
        pieces: &[&'static str],
    ) -> Result<Received, Fault> {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        receive(CONFIG, budget, &HeaderMap::new(), stream::iter(pieces)).await
    }

    #[tokio::test]
    async fn a_body_is_charged_while_it_lives() {
        let budget = Arc::new(Budget::new(16));
        let first = receive_pieces(&budget, &["12345", "67890"]).await.expect("it fits");
        assert_eq!(&first.bytes[..], b"1234567890");
        assert_eq!(budget.in_use(), 10);
        let refused = receive_pieces(&budget, &["12345", "67890"]).await.expect_err("no room");
        assert_eq!(refused.code, Code::NodeBusy);
        drop(first);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn what_does_not_fit_takes_no_room_from_what_does() {
        let budget = Arc::new(Budget::new(10));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                (0..200_000).for_each(|_| assert!(!Hold::new(&budget).grow(100), "too much"));
            });
            (0..200_000).for_each(|_| assert!(Hold::new(&budget).grow(1), "there is room"));
        });
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn too_much_is_refused_announced_or_not() {
        let budget = Arc::new(Budget::new(1000));
        let fault = receive_pieces(&budget, &["12345", "67890", "1"]).await.expect_err("too large");
        assert_eq!(fault.code, Code::BodyTooLarge);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("11"));
        let nothing = stream::pending();
        let fault = receive(CONFIG, &budget, &headers, nothing).await.expect_err("too large");
        assert_eq!(fault.code, Code::BodyTooLarge);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn a_silent_body_times_out() {
        let budget = Arc::new(Budget::new(1000));
        let fault = receive(CONFIG, &budget, &HeaderMap::new(), stream::pending())
            .await
            .expect_err("nothing comes");
        assert_eq!(fault.code, Code::RequestTimeout);
    }
}
