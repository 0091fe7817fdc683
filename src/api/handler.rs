//! One request from actix to the proxy and its reply back.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use actix_http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use actix_http::{ConnectionType, Method, StatusCode, Uri, Version};
use actix_web::HttpRequest;
use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};

use super::answer::Exchange;
use super::backend::Backend;
use super::body::RequestBody;
use super::client_ip::client_ip;
use super::connection::Conn;
use super::data::Listener;
use super::route::Route;
use super::{error, host, models, probe};
use crate::domain::{Code, Fault, Phase, RequestId};
use crate::provider::Endpoint;
use crate::proxy::{Body, Reply, Request};

const NOT_SERVED: &str = "This path is not served here. Served are GET /v1/models and POST under \
    /v1: chat/completions, completions, embeddings, moderations, images/*, audio/*. Stateful \
    APIs (files, batches, assistants) and the Responses API are not served.";

/// As many headers as most requests have at most.
const USUAL_HEADERS: usize = 14;

/// What serves the requests of one worker.
#[derive(Debug)]
pub(super) struct Handler<B> {
    pub(super) listener: Rc<Listener>,
    pub(super) worker: Rc<B>,
}

/// A request taken apart.
struct Parts {
    http: HttpRequest,
    headers: HeaderMap,
    payload: Payload,
    conn: Rc<Conn>,
    received: Instant,
}

impl<B: Backend> Handler<B> {
    /// Serves a request. The future is dropped when the client leaves: nothing after its awaits
    /// is needed.
    pub(super) async fn call(
        self: Rc<Self>,
        mut request: ServiceRequest,
    ) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
        let received = Instant::now();
        let conn = request.conn_data::<Rc<Conn>>().cloned();
        let conn = conn.expect("every connection brings its state");
        // actix uses the head again for another request, and fills what is left in it.
        let room = HeaderMap::with_capacity(USUAL_HEADERS);
        let headers = std::mem::replace(request.headers_mut(), room);
        let (http, payload) = request.into_parts();
        let serving = conn.begin(!matches!(payload, Payload::None));
        let mut exchange =
            Exchange::new(self.listener.random().next_id(), &headers, &self.listener);

        // Nothing is upgraded to here; without this, actix would confirm the wish.
        exchange.close = http.head().connection_type() == ConnectionType::Upgrade;
        exchange.old = http.version() < Version::HTTP_11;

        let parts = Parts { http: http.clone(), headers, payload, conn, received };
        let reply = self.reply(&mut exchange, parts).await;
        // Every client shall go elsewhere while there is time.
        exchange.close |= self.worker.lifecycle().phase() >= Phase::Draining;
        let response = exchange.answer(reply, &self.listener, serving);
        Ok(ServiceResponse::new(http, response))
    }

    async fn reply(&self, exchange: &mut Exchange, parts: Parts) -> Reply {
        let route = Route::of(parts.http.path());
        let received = parts.received;
        let label = route.label();
        let is_probe = matches!(route, Route::Live | Route::Ready);
        let own = match self.refuse(&parts) {
            Some((status, message)) => {
                exchange.close = true;
                let fault = Fault::new(Code::InvalidRequest, message);
                (Reply::fault_as(&fault, status), fault.code.as_str())
            }
            None => match (route, parts.http.method()) {
                (Route::Model(endpoint), &Method::POST) => {
                    return self.serve(endpoint, exchange, parts).await;
                }
                (route, method) => self.own(route, &method.clone(), exchange.id, parts),
            },
        };
        let (reply, outcome) = own;
        // Probes are nobody's requests.
        if is_probe {
            return reply;
        }
        let seconds = received.elapsed().as_secs_f64();
        self.worker.metrics().request(label, "", outcome, reply.status.as_u16(), seconds);
        reply
    }

    /// What is no clean request to this node, before anybody asks what it wants.
    fn refuse(&self, parts: &Parts) -> Option<(StatusCode, &'static str)> {
        if !is_one_authority(parts.http.uri(), &parts.headers) {
            let message = "The address in the request line is not that of the Host header.";
            return Some((StatusCode::BAD_REQUEST, message));
        }
        if is_socket_with_body(parts.http.method(), &parts.headers) {
            let message = "This node speaks no WebSocket: send the request without Upgrade.";
            return Some((StatusCode::BAD_REQUEST, message));
        }
        let listen = self.listener.addr().ip();
        if listen.is_loopback() && self.worker.is_open() {
            let allowed = |origin: &HeaderValue| self.listener.cors().allows(origin);
            let message = host::refusal(&parts.headers, listen, allowed)?;
            return Some((StatusCode::FORBIDDEN, message));
        }
        None
    }

    /// The answers that need no provider, and how metrics call their outcome.
    fn own(
        &self,
        route: Route,
        method: &Method,
        id: RequestId,
        parts: Parts,
    ) -> (Reply, &'static str) {
        let invalid = Code::InvalidRequest.as_str();
        match (&route, method) {
            (_, &Method::OPTIONS) => {
                let preflight = self.listener.cors().preflight(&parts.headers, route.methods());
                (preflight.unwrap_or_else(|| options(route.methods())), "ok")
            }
            (Route::NotServed, _) => {
                let fault = Fault::new(Code::EndpointNotServed, NOT_SERVED);
                (Reply::fault(&fault), fault.code.as_str())
            }
            (Route::Model(_), _) => (error::wrong_method(route.methods()), invalid),
            (_, method) if *method != Method::GET && *method != Method::HEAD => {
                (error::wrong_method(route.methods()), invalid)
            }
            (Route::Live, _) => (text(StatusCode::OK, probe::LIVE), "ok"),
            (Route::Ready, _) => {
                let (status, words) =
                    probe::ready(self.worker.lifecycle().phase(), self.worker.can_serve());
                (text(status, words), "ok")
            }
            (Route::Models, _) => self.models(id, parts, models::list),
            (Route::ModelNamed(name), _) => {
                self.models(id, parts, |known| models::one(known, name))
            }
        }
    }

    fn models(
        &self,
        id: RequestId,
        parts: Parts,
        render: impl Fn(&[String]) -> Reply,
    ) -> (Reply, &'static str) {
        // The list belongs to no endpoint; its clients speak the same protocol as this one's.
        let (request, _) = self.request(Endpoint::ChatCompletions, id, parts);
        match self.worker.models(&request) {
            Ok(models) => (render(&models), "ok"),
            Err(fault) => (Reply::fault(&fault), fault.code.as_str()),
        }
    }

    async fn serve(&self, endpoint: Endpoint, exchange: &mut Exchange, parts: Parts) -> Reply {
        let broken = Rc::new(Cell::new(false));
        let conn = Rc::clone(&parts.conn);
        let (request, payload) = self.request(endpoint, exchange.id, parts);
        let body = RequestBody::new(payload, conn, Rc::clone(&broken));
        let mut serve = pin!(B::serve(&self.worker, request, body));
        // actix gives up on a request whose framing is broken at the end of this turn: the answer
        // must be there by then, whatever the proxy waits for.
        let reply = poll_fn(|cx| match serve.as_mut().poll(cx) {
            Poll::Pending if broken.get() => Poll::Ready(error::broken_body()),
            polled => polled,
        })
        .await;
        exchange.close |= broken.get();
        reply
    }

    fn request(&self, endpoint: Endpoint, id: RequestId, parts: Parts) -> (Request, Payload) {
        let Parts { http, headers, payload, conn, received } = parts;
        let client_ip = client_ip(conn.client(), &headers, self.listener.trusted());
        let query = http.query_string().to_owned();
        (Request { id, endpoint, headers, query, client_ip, received }, payload)
    }
}

/// A request line may name the server too; then both must name the same.
fn is_one_authority(uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(authority) = uri.authority() else { return true };
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let default_port = |text: &[u8]| text.strip_suffix(b":80").unwrap_or(text).to_ascii_lowercase();
    default_port(authority.as_str().as_bytes()) == default_port(host)
}

/// actix takes all that follows a wish to upgrade for the body, whatever its length says. Without a
/// body there is nothing to mistake, and the connection closes anyway.
fn is_socket_with_body(method: &Method, headers: &HeaderMap) -> bool {
    let mut wishes = headers.get_all(UPGRADE).map(HeaderValue::as_bytes);
    wishes.any(|wish| wish.trim_ascii().eq_ignore_ascii_case(b"websocket"))
        && !headers.contains_key(TRANSFER_ENCODING)
        && (*method == Method::POST || headers.contains_key(CONTENT_LENGTH))
}

fn options(methods: &'static str) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(actix_http::header::ALLOW, HeaderValue::from_static(methods));
    Reply { status: StatusCode::NO_CONTENT, headers, body: Body::Whole(Default::default()) }
}

fn text(status: StatusCode, words: &'static str) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Reply { status, headers, body: Body::Whole(words.as_bytes().into()) }
}
