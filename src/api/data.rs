//! The data listener: actix's server over our own connections.
//!
//! `actix_web::HttpServer` fixes the type of its connections, so the same pieces are put together
//! here: actix-server accepts and spreads connections over workers, actix-http speaks HTTP/1.1 on
//! them, and one actix-web service takes every path. The admin listener is put together likewise.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::header::HeaderValue;
use actix_http::{HttpService, KeepAlive};
use actix_server::{Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use bytes::{BufMut, BytesMut};
use ipnet::IpNet;
use tokio::net::TcpStream;

use super::answer::{NODE, REQUEST_ID};
use super::backend::Backend;
use super::connection::{ClientIo, Clocks, Conn};
use super::cors::Cors;
use super::handler::Handler;
use crate::domain::{Fault, Random};
use crate::provider::openai;
use crate::telemetry::{Held, Level};

/// How long a connection without a request is kept: longer than the 60 s after which common
/// balancers let go of theirs, so that it is never us who close one under a request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client that is still sending may go on after its answer, before it is cut off: it
/// needs the time to notice that an answer is there.
const LINGER: Duration = Duration::from_secs(5);

/// actix-server knows no more.
const MAX_WORKERS: usize = 512;

/// What the data listener needs to know.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Worker threads, 1 to 512.
    pub workers: usize,
    /// For each request head.
    pub head_timeout: Duration,
    /// For a client that reads nothing of its answer.
    pub write_stall: Duration,
    /// For a connection without a request; `KEEP_ALIVE`.
    pub keep_alive: Duration,
    /// The longest a stopped server waits for its connections; requests that last longer are cut.
    pub shutdown: Duration,
    /// Peers whose word about the client is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that may use the node; `*` is any.
    pub cors_origins: Vec<String>,
}

/// Serves clients until the server is stopped. `make_worker` is called once on each worker thread.
///
/// Stopping it gracefully through its handle lets requests that are in flight finish.
///
/// # Errors
/// The listener cannot be used.
pub fn serve<B: Backend>(
    config: DataConfig,
    listener: TcpListener,
    make_worker: impl Fn() -> Rc<B> + Send + Clone + 'static,
) -> io::Result<Server> {
    let config = Arc::new(config);
    let addr = listener.local_addr()?;
    let builder = Server::build();
    run("data", builder, &Arc::clone(&config), listener, move || {
        let worker = make_worker();
        let metrics = Rc::clone(&worker);
        let refused = move |outcome, status| {
            metrics.metrics().request("", "", outcome, status, 0.0);
        };
        let open = worker.metrics().connections();
        let listener = Listener::new(Arc::clone(&config), addr, worker.node(), open, refused);
        let listener = Rc::new(listener);
        let handler = Rc::new(Handler { listener: Rc::clone(&listener), worker });
        (listener, move |request| Rc::clone(&handler).call(request))
    })
}

/// Puts the pieces of actix together; `make` is called once on each worker thread.
pub(super) fn run<H, F>(
    name: &'static str,
    builder: ServerBuilder,
    config: &DataConfig,
    listener: TcpListener,
    make: impl Fn() -> (Rc<Listener>, H) + Send + Clone + 'static,
) -> io::Result<Server>
where
    H: Fn(ServiceRequest) -> F + Clone + 'static,
    F: Future<Output = Result<ServiceResponse<BoxBody>, actix_web::Error>> + 'static,
{
    let builder = builder
        .workers(config.workers.clamp(1, MAX_WORKERS))
        .disable_signals()
        .shutdown_timeout(config.shutdown.as_secs().max(1));
    let stopping = builder.graceful_shutdown_signal();

    let server = builder.listen(name, listener, move || {
        let (listener, handler) = make();
        let app = App::new().default_service(fn_service(handler));
        let app = app.into_factory().map_err(|error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            // All clocks but this one are the connection's own.
            .client_disconnect_timeout(LINGER)
            .client_request_timeout(Duration::ZERO)
            .keep_alive(KeepAlive::Os)
            .h1_allow_half_closed(false)
            .on_connect_ext(|io: &ClientIo, data| {
                data.insert::<Rc<Conn>>(Rc::clone(io.conn()));
            })
            .h1(map_config(app, |()| AppConfig::default()));
        fn_service(move |socket: TcpStream| {
            let io = ClientIo::accept(socket, Rc::clone(&listener));
            async move {
                let io = io.map_err(DispatchError::Io)?;
                let peer = io.peer();
                Ok((io, peer))
            }
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// What the connections of one worker share.
pub(super) struct Listener {
    config: Arc<DataConfig>,
    addr: SocketAddr,
    node: HeaderValue,
    cors: Cors,
    random: Random,
    open: Level,
    refused: Box<dyn Fn(&'static str, u16)>,
}

impl Listener {
    /// `open` counts connections; `refused` is told the outcome and the status of each `refusal`.
    pub(super) fn new(
        config: Arc<DataConfig>,
        addr: SocketAddr,
        node: &str,
        open: Level,
        refused: impl Fn(&'static str, u16) + 'static,
    ) -> Self {
        let node = HeaderValue::from_str(node);
        let node = node.unwrap_or_else(|_| HeaderValue::from_static("unnamed"));
        let cors = Cors::new(&config.cors_origins);
        let refused = Box::new(refused);
        Self { config, addr, node, cors, random: Random::new(), open, refused }
    }

    /// Counts one connection until the guard is dropped.
    pub(super) fn opened(&self) -> Held {
        self.open.hold()
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn node(&self) -> &HeaderValue {
        &self.node
    }

    pub(super) fn cors(&self) -> &Cors {
        &self.cors
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    pub(super) fn trusted(&self) -> &[IpNet] {
        &self.config.trusted_proxies
    }

    pub(super) fn clocks(&self) -> Clocks {
        let DataConfig { head_timeout: head, keep_alive, write_stall, .. } = *self.config;
        Clocks { head, keep_alive, write_stall }
    }

    /// A whole answer for a connection that closes before there is a request to answer.
    pub(super) fn refusal(&self, fault: &Fault, status: u16) -> BytesMut {
        (self.refused)(fault.code.as_str(), status);
        let body = openai::error_body(fault);
        let reason = actix_http::StatusCode::from_u16(status).ok();
        let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\n\
             content-type: application/json\r\n\
             content-length: {}\r\n\
             connection: close\r\n\
             {REQUEST_ID}: {}\r\n\
             {NODE}: ",
            body.len(),
            self.random.next_id(),
        );
        let mut answer = BytesMut::with_capacity(head.len() + 64 + body.len());
        answer.put_slice(head.as_bytes());
        answer.put_slice(self.node.as_bytes());
        answer.put_slice(b"\r\n\r\n");
        answer.put_slice(&body);
        answer
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("addr", &self.addr).finish_non_exhaustive()
    }
}
