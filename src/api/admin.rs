//! The admin listener: health, metrics and the admin API, on a worker of its own.
//!
//! It is a server apart, so that a data plane with its hands full still answers probes. Its
//! connections have the clocks of the data listener's: whoever can reach it could otherwise hold
//! all of them with bytes that drip, and keep the probes out.

mod limits;
mod query;
mod usage;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use actix_http::{Method, StatusCode};
use actix_server::Server;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::json;

use super::body::ReplyBody;
use super::connection::Conn;
use super::data::{self, DataConfig, Listener};
use super::{host, probe};
use crate::domain::{KeyHash, Phase, Secret};
use crate::proxy::{Body, Shared};
use crate::telemetry::{Level, Metrics};

/// Scrapers come every 15 s or so.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Nothing here takes longer than a moment.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// More than operators and scrapers ever open.
const MAX_CONNECTIONS: usize = 256;

/// What the admin listener needs to know.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// The bootstrap token; without one the admin API is off.
    pub token: Option<Secret>,
    /// For each request head.
    pub head_timeout: Duration,
    /// For a client that reads nothing of its answer.
    pub write_stall: Duration,
}

/// Serves operators until the server is stopped.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(
    config: AdminConfig,
    listener: TcpListener,
    shared: Arc<Shared>,
) -> io::Result<Server> {
    let token = config.token.map(|token| KeyHash::of(token.expose().as_bytes()));
    let addr = listener.local_addr()?;
    let admin = Admin { shared, token, addr };
    let terms = Arc::new(DataConfig {
        workers: 1,
        head_timeout: config.head_timeout,
        write_stall: config.write_stall,
        keep_alive: KEEP_ALIVE,
        shutdown: SHUTDOWN,
        trusted_proxies: Vec::new(),
        cors_origins: Vec::new(),
    });
    let builder = Server::build().max_concurrent_connections(MAX_CONNECTIONS);
    data::run("admin", builder, &Arc::clone(&terms), listener, move || {
        let admin = admin.clone();
        // What is no request is nobody's, and no metric counts it.
        let listener = Listener::new(
            Arc::clone(&terms),
            addr,
            &admin.shared.node,
            Level::default(),
            |_, _| {},
        );
        let serve = move |request| {
            let admin = admin.clone();
            async move { Ok(admin.serve(request).await) }
        };
        (Rc::new(listener), serve)
    })
}

type Answer = HttpResponse<Bytes>;

#[derive(Clone, Debug)]
struct Admin {
    shared: Arc<Shared>,
    token: Option<KeyHash>,
    addr: SocketAddr,
}

impl Admin {
    /// No path reads a body yet, so none is.
    async fn serve(&self, request: ServiceRequest) -> ServiceResponse<BoxBody> {
        let conn = request.conn_data::<Rc<Conn>>().cloned();
        let conn = conn.expect("every connection brings its state");
        let (http, payload) = request.into_parts();
        let serving = conn.begin(!matches!(payload, Payload::None));
        let answer = self.answer(&http).await;
        let answer = answer.map_body(|_, text| ReplyBody::new(Body::Whole(text), serving).boxed());
        ServiceResponse::new(http, answer)
    }

    async fn answer(&self, request: &HttpRequest) -> Answer {
        let headers = request.headers();
        if self.token.is_none()
            && self.addr.ip().is_loopback()
            && let Some(message) = host::refusal(headers, self.addr.ip(), |_| false)
        {
            return error(StatusCode::FORBIDDEN, "foreign_host", message);
        }
        let path = request.path();
        if path == "/admin/v1" || path.starts_with("/admin/v1/") {
            return self.api(request).await;
        }
        let known = matches!(path, "/livez" | "/readyz" | "/healthz" | "/metrics");
        if known && request.method() != Method::GET && request.method() != Method::HEAD {
            return only_get();
        }
        match path {
            "/livez" => text(StatusCode::OK, probe::LIVE),
            "/readyz" => {
                let (status, words) = probe::ready(
                    self.shared.lifecycle.phase(),
                    self.shared.snapshot.load().can_serve(),
                );
                text(status, words)
            }
            "/healthz" => self.health(),
            "/metrics" => self.metrics(),
            _ => error(StatusCode::NOT_FOUND, "not_found", "There is no such path."),
        }
    }

    async fn api(&self, request: &HttpRequest) -> Answer {
        let headers = request.headers();
        let Some(expected) = &self.token else {
            let message = "The admin API is off; set FLOTILLA_ADMIN_TOKEN to turn it on.";
            return error(StatusCode::FORBIDDEN, "admin_disabled", message);
        };
        // Two tokens are none: nobody can say which one counts.
        let mut given = headers.get_all(AUTHORIZATION).map(bearer);
        let token = match (given.next(), given.next()) {
            (Some(Some(token)), None) => Some(KeyHash::of(token)),
            _ => None,
        };
        if token.as_ref() != Some(expected) {
            let message = "Send Authorization: Bearer with the admin token.";
            let mut answer = error(StatusCode::UNAUTHORIZED, "invalid_token", message);
            let challenge = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return answer;
        }
        let path = request.path().trim_start_matches("/admin/v1");
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/limits" if get => limits::limits(&self.shared, request.query_string()).await,
            "/usage" if get => usage::usage(&self.shared, request.query_string()).await,
            "/limits" | "/usage" => only_get(),
            _ => error(StatusCode::NOT_FOUND, "not_found", "The admin API has no such path yet."),
        }
    }

    /// The node as it sees itself; nothing is asked of anybody.
    fn health(&self) -> Answer {
        let snapshot = self.shared.snapshot.load();
        let phase = self.shared.lifecycle.phase();
        let providers: serde_json::Map<_, _> = snapshot
            .providers
            .iter()
            .map(|provider| (provider.name.to_string(), json!({ "enabled": provider.enabled })))
            .collect();
        let body = json!({
            "node": &*self.shared.node,
            "phase": probe::phase_text(phase),
            "revision": snapshot.revision,
            "checksum": &*snapshot.checksum,
            "revision_age_seconds": self.shared.metrics.revision_age().map(|age| age.as_secs()),
            "in_flight": self.shared.lifecycle.in_flight(),
            "providers": providers,
        });
        let status = match phase {
            Phase::Serving => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        typed(status, "application/json", format!("{body}\n"))
    }

    fn metrics(&self) -> Answer {
        let bodies = i64::try_from(self.shared.body_bytes()).unwrap_or(i64::MAX);
        self.shared.metrics.body_bytes().set(bodies);
        self.shared.metrics.set_in_flight(self.shared.lifecycle.in_flight());
        typed(StatusCode::OK, Metrics::CONTENT_TYPE, self.shared.metrics.render())
    }
}

fn only_get() -> Answer {
    let message = "This path takes GET and HEAD only.";
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", message);
    answer.headers_mut().insert(actix_http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// The token of an `Authorization` header.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "error": { "code": code, "message": message } });
    typed(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, words: &'static str) -> Answer {
    typed(status, "text/plain; charset=utf-8", words.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = HttpResponse::with_body(status, Bytes::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
