//! What the listener hands in and takes back.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use actix_http::StatusCode;
use actix_http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use bytes::Bytes;
use futures_core::Stream;

use crate::domain::{Code, Fault, RequestId};
use crate::provider::{Endpoint, openai};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A request as the listener hands it in, without its body.
#[derive(Debug)]
pub struct Request {
    /// The node's own id for it.
    pub id: RequestId,
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The query string, without its question mark; may hold a credential.
    pub query: String,
    /// Who sent it, as far as trusted proxies tell.
    pub client_ip: IpAddr,
    /// When its head was complete.
    pub received: Instant,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All headers but `content-length` and hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

/// The pieces of a body that is still coming.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>>>>;

/// The body of a reply.
pub enum Body {
    /// All there is.
    Whole(Bytes),
    /// As it comes. An `Err` means that the connection is to be closed without a clean end. No
    /// piece is empty. Dropping it means that the client left.
    Stream {
        /// The number of bytes, where the provider announced it.
        len: Option<u64>,
        /// The pieces.
        pieces: Pieces,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream { len, .. } => write!(f, "Stream({len:?})"),
        }
    }
}

/// The answer broke off and must not look complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Aborted;

impl Reply {
    /// An error of our own, in the shape of the client's protocol.
    #[must_use]
    pub fn fault(fault: &Fault) -> Self {
        let status = StatusCode::from_u16(fault.code.status()).expect("codes have valid statuses");
        Self::fault_as(fault, status)
    }

    /// The same under another status, where HTTP has one of its own for the case.
    #[must_use]
    pub fn fault_as(fault: &Fault, status: StatusCode) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = fault.retry_after {
            retry_headers(&mut headers, wait);
        }
        if fault.code == Code::BudgetExceeded {
            // Days may be left of the period: the retries of an SDK only cost time.
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        Self { status, headers, body: Body::Whole(openai::error_body(fault)) }
    }
}

/// `Retry-After` knows whole seconds only, and too early is worse than too late.
fn retry_headers(headers: &mut HeaderMap, wait: Duration) {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    let millis = wait.as_nanos().div_ceil(1_000_000);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_never_named_too_early() {
        for (wait, seconds, millis) in [
            (Duration::ZERO, "0", "0"),
            (Duration::from_millis(1), "1", "1"),
            (Duration::from_millis(1000), "1", "1000"),
            (Duration::from_nanos(1_000_000_001), "2", "1001"),
            (Duration::MAX, "18446744073709551615", "18446744073709551615"),
        ] {
            let reply = Reply::fault(&Fault::new(Code::NodeBusy, "busy").retry_after(wait));
            let header = |name| reply.headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header(RETRY_AFTER), Some(seconds));
            assert_eq!(header(RETRY_AFTER_MS), Some(millis));
        }
    }
}
