//! What the listener hands in and takes back.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Instant;

use actix_http::StatusCode;
use actix_http::header::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_core::Stream;

use crate::domain::{Fault, RequestId};
use crate::provider::{Endpoint, openai};

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
    /// An error of our own, in the shape of the client's protocol. Its `retry_after` is left to
    /// the listener, which writes it for every error alike.
    pub(super) fn fault(fault: &Fault) -> Self {
        let status = StatusCode::from_u16(fault.code.status()).expect("codes have valid statuses");
        let mut headers = HeaderMap::new();
        headers
            .insert(actix_http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = fault.retry_after {
            let seconds = wait.as_millis().div_ceil(1000);
            headers.insert(actix_http::header::RETRY_AFTER, HeaderValue::from(seconds as u64));
            let name = actix_http::header::HeaderName::from_static("retry-after-ms");
            headers.insert(name, HeaderValue::from(wait.as_millis() as u64));
        }
        Self { status, headers, body: Body::Whole(openai::error_body(fault)) }
    }
}
