//! The admin listener: health, metrics and the admin API, on a worker of its own.
//!
//! It is a server apart, so that a data plane with its hands full still answers probes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_http::{Method, StatusCode};
use actix_server::Server;
use actix_service::fn_service;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::{App, HttpResponse, HttpServer};
use serde_json::json;

use super::{host, probe};
use crate::domain::{KeyHash, Phase, Secret};
use crate::proxy::Shared;
use crate::telemetry::Metrics;

/// For a request's head, and for a client that shall read the end of an answer.
const SLOW_CLIENT: Duration = Duration::from_secs(5);

/// Scrapers come every 15 s or so.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Nothing here takes longer than a moment.
const SHUTDOWN_SECONDS: u64 = 1;

/// More than operators and scrapers ever open.
const MAX_CONNECTIONS: usize = 256;

/// What the admin listener needs to know.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// The bootstrap token; without one the admin API is off.
    pub token: Option<Secret>,
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
    let server = HttpServer::new(move || {
        let admin = admin.clone();
        App::new().default_service(fn_service(move |request: ServiceRequest| {
            let response = admin.answer(&request);
            async move {
                let (http, _) = request.into_parts();
                Ok(ServiceResponse::new(http, response))
            }
        }))
    });
    let server = server
        .workers(1)
        .max_connections(MAX_CONNECTIONS)
        .client_request_timeout(SLOW_CLIENT)
        .client_disconnect_timeout(SLOW_CLIENT)
        .keep_alive(KEEP_ALIVE)
        .h1_allow_half_closed(false)
        .tcp_nodelay(true)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .listen(listener)?;
    Ok(server.run())
}

#[derive(Clone, Debug)]
struct Admin {
    shared: Arc<Shared>,
    token: Option<KeyHash>,
    addr: SocketAddr,
}

impl Admin {
    /// No path reads a body yet, so none is.
    fn answer(&self, request: &ServiceRequest) -> HttpResponse {
        let headers = request.headers();
        if self.token.is_none()
            && self.addr.ip().is_loopback()
            && let Some(message) = host::refusal(headers, self.addr.ip(), |_| false)
        {
            return error(StatusCode::FORBIDDEN, "foreign_host", message);
        }
        let path = request.path();
        if path == "/admin/v1" || path.starts_with("/admin/v1/") {
            return self.api(headers);
        }
        let known = matches!(path, "/livez" | "/readyz" | "/healthz" | "/metrics");
        if known && request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = error(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "This path takes GET and HEAD only.",
            );
            let allow = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(actix_http::header::ALLOW, allow);
            return answer;
        }
        match path {
            "/livez" => text(StatusCode::OK, probe::LIVE),
            "/readyz" => {
                let (status, words) = probe::ready(self.shared.lifecycle.phase());
                text(status, words)
            }
            "/healthz" => self.health(),
            "/metrics" => self.metrics(),
            _ => error(StatusCode::NOT_FOUND, "not_found", "There is no such path."),
        }
    }

    fn api(&self, headers: &HeaderMap) -> HttpResponse {
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
        error(StatusCode::NOT_FOUND, "not_found", "The admin API has no such path yet.")
    }

    /// The node as it sees itself; nothing is asked of anybody.
    fn health(&self) -> HttpResponse {
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

    fn metrics(&self) -> HttpResponse {
        let bodies = i64::try_from(self.shared.body_bytes()).unwrap_or(i64::MAX);
        self.shared.metrics.body_bytes().set(bodies);
        self.shared.metrics.set_in_flight(self.shared.lifecycle.in_flight());
        typed(StatusCode::OK, Metrics::CONTENT_TYPE, self.shared.metrics.render())
    }
}

/// The token of an `Authorization` header.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body = json!({ "error": { "code": code, "message": message } });
    typed(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, words: &'static str) -> HttpResponse {
    typed(status, "text/plain; charset=utf-8", words.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> HttpResponse {
    let mut answer = HttpResponse::new(status).set_body(actix_web::body::BoxBody::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
