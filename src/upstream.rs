//! The way to providers: one boundary, `Upstream::send`, behind which connections are made, kept
//! and closed.
//!
//! What the boundary promises: an answer that broke off is an error and never a short success; no
//! request ever receives another's answer; dropping any future or body closes its connection at
//! once; a stale pooled connection is retried once on a fresh one, only where it had been used
//! before, no byte of an answer came and it broke at once. Redirects are not followed, nothing is decompressed, and
//! no clock runs except the connect clock of each call: all others belong to the caller.
//!
//! One thing no client can see: an answer that nobody asked for and that arrives while the next
//! request is already on its way looks like that one's. What came before is noticed, and ends the
//! connection.
//!
//! From the top: `client` sends and retries; `site` keeps idle connections and counts; `dial`,
//! `lookup` and `address` make new ones; `exchange` sends a request over one and follows what comes
//! back, with `outgoing`, `head` and `framing`; `answer_body` is what the caller sees of it. Why
//! this is no library's client: docs/decisions/0002-thin-client.md.

mod address;
mod answer_body;
mod client;
mod config;
mod dial;
mod exchange;
pub(crate) mod framing;
mod head;
mod lookup;
mod outgoing;
#[cfg(test)]
mod properties;
mod site;
mod socket;
mod tls;

use std::time::Duration;

use actix_http::{Method, StatusCode};

pub use self::address::AddressPolicy;
pub use self::answer_body::AnswerBody;
pub use self::client::Upstream;
pub use self::config::Config;
pub use self::site::Standing;
pub use self::tls::{TlsError, tls_config};
use crate::domain::{Headers, Payload};

/// One request to a provider.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// All headers but `host`, `content-length` and hop-by-hop ones, which are made here.
    pub headers: Headers,
    /// The body; its length is known, so it is always sent with a `content-length`.
    pub body: Payload,
    /// For name look-up, TCP and TLS together, where a new connection is needed.
    pub connect: Duration,
}

/// A provider's answer: its head, and its body as it comes.
#[derive(Debug)]
pub struct Answer {
    /// The final status; informational ones are skipped.
    pub status: StatusCode,
    /// All headers as they came.
    pub headers: Headers,
    /// The body. Dropping it before its end closes the connection.
    pub body: AnswerBody,
}

/// Why a provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connect clock ran out before TLS was done.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The name could not be looked up, or nobody accepts connections there.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The name leads to an address that is never connected to, such as a link-local one.
    #[error("address not allowed")]
    AddressRefused,
    /// TLS failed: a certificate that does not verify, for instance.
    #[error("TLS failed")]
    Tls(#[source] std::io::Error),
    /// Too many requests to this provider are in flight on this worker.
    #[error("too many requests in flight to this provider")]
    Busy,
    /// The connection closed before the answer's head was complete.
    #[error("connection closed before an answer")]
    Closed,
    /// What came is not an HTTP/1.1 answer, or the call's path cannot be sent in HTTP.
    #[error("not an HTTP answer")]
    Malformed,
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection closed or broke before the body was complete.
    #[error("the answer broke off")]
    Truncated,
    /// The framing of the body is not HTTP.
    #[error("the answer's framing is broken")]
    Malformed,
}
