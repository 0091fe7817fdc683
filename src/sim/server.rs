//! The simulator's listener: from a connection to a protocol's answer and back.

use std::convert::Infallible;
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_http::error::{DispatchError, PayloadError};
use actix_http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use actix_http::{HttpMessage, HttpService, Method, Payload, Request, Response, StatusCode};
use actix_rt::net::TcpStream;
use actix_rt::time::sleep;
use actix_server::Server;
use actix_service::{ServiceFactoryExt, fn_service};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::body::Body;
use super::chance::Chance;
use super::config::{Config, LONGEST};
use super::fault::Fault;
use super::openai;
use super::reply::{Outcome, Reply};
use super::wire::{Fuse, Wire};

/// A larger request body is refused.
const LARGEST_BODY: usize = 256 << 20;

/// A silent connection is kept so long, which is longer than most clients keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What belongs to one worker.
#[derive(Debug)]
pub(super) struct Stage {
    /// The settings.
    pub(super) config: Config,
    /// The dice.
    pub(super) chance: Chance,
}

/// One request, read.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The method.
    pub(super) method: &'a Method,
    /// The path, without the query.
    pub(super) path: &'a str,
    /// Whether the body is a multipart form.
    pub(super) form: bool,
    /// The body.
    pub(super) body: &'a Bytes,
    /// The settings, as the request's own headers change them.
    pub(super) config: Config,
    /// The fault that the request's own headers ask for.
    pub(super) fault: Option<Fault>,
}

impl Stage {
    /// Appends a random id of 24 hexadecimal digits.
    pub(super) fn push_id(&self, out: &mut String, prefix: &str) {
        out.push_str(prefix);
        let bits = u128::from(self.chance.next()) << 64 | u128::from(self.chance.next());
        let digit = |place: u32| b"0123456789abcdef"[(bits >> (4 * place) & 15) as usize];
        out.extend((0..24).map(|place| char::from(digit(place))));
    }

    /// A random id of 24 hexadecimal digits.
    pub(super) fn id(&self, prefix: &str) -> String {
        let mut id = String::with_capacity(prefix.len() + 24);
        self.push_id(&mut id, prefix);
        id
    }
}

/// Unix time in seconds, as answers carry it.
pub(super) fn created() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Serves simulated providers on this listener until the server is stopped by its handle; signals
/// are left to the caller. What is in flight when it stops has a second to end.
///
/// Runs in a process of its own as well as inside of a node's: it shares nothing.
///
/// # Errors
/// Those of the listener.
pub fn serve(listener: TcpListener, config: Config, workers: usize) -> io::Result<Server> {
    let seed = config.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    let born = Arc::new(AtomicU64::new(0));
    let server = Server::build().workers(workers.max(1)).disable_signals().shutdown_timeout(1);
    let server = server.listen("sim", listener, move || {
        let chance = Chance::new(seed.wrapping_add(born.fetch_add(1, Ordering::Relaxed) << 32));
        let stage = Rc::new(Stage { config, chance });
        let http = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            // A client that is gone is noticed at once, so no script plays to an empty house.
            .h1_allow_half_closed(false)
            .on_connect_ext(|wire: &Wire, extensions| {
                extensions.insert(wire.fuse());
            })
            .h1(fn_service(move |request| answer(Rc::clone(&stage), request)));
        fn_service(|tcp: TcpStream| {
            // Without it small pieces wait for acknowledgements; where it fails they do just that.
            drop(tcp.set_nodelay(true));
            let peer = tcp.peer_addr().ok();
            ready(Ok::<_, DispatchError>((Wire::new(tcp), peer)))
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// Answers one request.
async fn answer(stage: Rc<Stage>, mut request: Request) -> Result<Response<Body>, Infallible> {
    let mut payload = request.take_payload();
    let outcome = match read(request.headers(), &mut payload).await {
        Ok(body) => decide(&stage, &request, &body),
        Err(PayloadError::Overflow) => {
            Outcome::Reply(openai::refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
        }
        Err(_) => Outcome::Reset,
    };
    Ok(match outcome {
        Outcome::Reply(reply) => {
            if !reply.after.is_zero() {
                sleep(reply.after).await;
            }
            respond(&stage, reply)
        }
        Outcome::Reset => reset(&request),
        Outcome::Silence => {
            sleep(LONGEST).await;
            reset(&request)
        }
    })
}

/// What becomes of a request that is read.
fn decide(stage: &Stage, request: &Request, body: &Bytes) -> Outcome {
    let headers = request.headers();
    let (config, fault) = match stage.config.overridden(headers) {
        Ok(settings) => settings,
        Err(why) => return Outcome::Reply(openai::refuse(StatusCode::BAD_REQUEST, &why)),
    };
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let call = Call {
        method: request.method(),
        path: request.path(),
        form: content_type.starts_with(b"multipart/form-data"),
        body,
        config,
        fault,
    };
    openai::answer(stage, &call)
}

/// Reads a whole body. One that came in one piece, as most do, is not copied.
async fn read(headers: &HeaderMap, payload: &mut Payload) -> Result<Bytes, PayloadError> {
    let Some(first) = payload.next().await.transpose()? else { return Ok(Bytes::new()) };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length == Some(first.len()) {
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    while let Some(piece) = payload.next().await.transpose()? {
        if body.len() + piece.len() > LARGEST_BODY {
            return Err(PayloadError::Overflow);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Makes HTTP of an answer.
fn respond(stage: &Stage, reply: Reply) -> Response<Body> {
    let mut response = Response::with_body(reply.status, reply.body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Ok(id) = HeaderValue::try_from(stage.id("req_")) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    for (name, value) in reply.headers {
        headers.insert(name, value);
    }
    response
}

/// Resets the connection of this request.
fn reset(request: &Request) -> Response<Body> {
    if let Some(fuse) = request.conn_data::<Fuse>() {
        fuse.light();
    }
    Response::with_body(StatusCode::OK, Body::Nothing)
}
