//! The life of a request, phase by phase: receive, authenticate, route, select, attempt, relay,
//! settle. SKELETON of what `api` builds on.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_http::StatusCode;
use actix_http::error::PayloadError;
use actix_http::header::HeaderMap;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_core::Stream;

use crate::domain::{Fault, Lifecycle, RequestId};
use crate::provider::Endpoint;
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;

/// What all workers of a node share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force; swapped whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Where the node stands in its life.
    pub lifecycle: Arc<Lifecycle>,
    /// The node's id, as answers carry it.
    pub node: Arc<str>,
}

/// What belongs to one worker thread.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// placeholder for the upstream client and the random source
    pub skeleton: RefCell<()>,
}

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
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All headers but `content-length` and hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

/// The body of a reply.
pub enum Body {
    /// All there is.
    Whole(Bytes),
    /// As it comes; `len` is the number of bytes where the provider announced it. An `Err` means
    /// that the connection is to be closed without a clean end. No piece is empty.
    Stream {
        /// The announced length.
        len: Option<u64>,
        /// The pieces.
        pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>>>>,
    },
}

/// The answer broke off and must not look complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Aborted;

/// Serves one request from its head to its reply; the body of the reply carries on the life.
pub async fn serve<S>(_worker: &Rc<Worker>, _request: Request, _body: S) -> Reply
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    todo!()
}

/// The models that the bearer of this credential may ask for, sorted.
///
/// # Errors
/// `invalid_key`, as for any other request.
pub fn models(_worker: &Worker, _request: &Request) -> Result<Vec<String>, Fault> {
    todo!()
}
