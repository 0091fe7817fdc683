//! `awc`, reduced to what it does well: writing a request and decoding an answer.
//!
//! Its pool is bypassed. Connections are chosen and made before `awc` is called; its connector
//! only hands over the one at hand. Since the pool's keep-alive is zero and a used `Io` is an
//! empty shell, the pool never finds anything to reuse and asks the connector for every request.
//! The way from the caller to the connector is a task-local, because `awc` passes nothing else
//! through: the connector is called while the request's future is polled, inside its scope.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::mem;
use std::time::Duration;

use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_http::{Payload, StatusCode, Uri};
use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};

use super::Call;
use super::io::Io;
use super::outgoing::Outgoing;

tokio::task_local! {
    /// The connection for the request that this task is about to send.
    static HANDOVER: RefCell<Option<Io>>;
}

/// Headers that belong to a connection and not to a request, and those that are made here.
/// `expect` would make `awc` wait for a 100 that the connection drops.
const OWN: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The connector.
#[derive(Clone, Debug)]
struct Handover;

impl Service<ConnectInfo<Uri>> for Handover {
    type Response = Connection<Uri, Io>;
    type Error = ConnectError;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    actix_service::always_ready!();

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let io = HANDOVER.try_with(|io| io.borrow_mut().take()).ok().flatten();
        let connection = io.map(|io| Connection::new(info.request().clone(), io));
        ready(connection.ok_or(ConnectError::Unresolved))
    }
}

/// An `awc` without limit, clocks, redirects and pool.
pub(super) fn client() -> awc::Client {
    let connector =
        awc::Connector::new().connector(Handover).limit(0).conn_keep_alive(Duration::ZERO);
    awc::Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .no_default_headers()
        .finish()
}

/// The URI `awc` is given. Its authority is no address: `awc` only knows its (empty) pool by it.
/// `None` where `path` cannot stand in a request line.
pub(super) fn uri(path: &str) -> Option<Uri> {
    Uri::builder().scheme("http").authority("upstream").path_and_query(path).build().ok()
}

/// Sends one request over one connection and reads the head of its answer.
pub(super) async fn transmit(
    client: &awc::Client,
    uri: Uri,
    host: HeaderValue,
    call: &Call,
    io: Io,
) -> Result<(StatusCode, HeaderMap, Payload), awc::error::SendRequestError> {
    let mut request = client.request(call.method.clone(), uri).no_decompress();
    let headers = request.headers_mut();
    headers.clone_from(&call.headers);
    for name in OWN {
        headers.remove(name);
    }
    headers.insert(header::HOST, host);
    let body = Outgoing::new(call);
    let mut response =
        HANDOVER.scope(RefCell::new(Some(io)), async { request.send_body(body).await }).await?;
    let status = response.status();
    let payload = actix_http::HttpMessage::take_payload(&mut response);
    let mut headers = HeaderMap::new();
    let _emptied = response.map_body(|head, body| {
        mem::swap(&mut headers, head.headers_mut());
        body
    });
    Ok((status, headers, payload))
}
