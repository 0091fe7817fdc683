//! A data listener on port 0 whose backend does what a header of the request says, and a client
//! on a raw socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use actix_server::ServerHandle;
use bytes::Bytes;
use flotilla::api::{self, Backend, DataConfig, RequestBody};
use flotilla::domain::{Code, Fault, Lifecycle, Phase};
use flotilla::proxy::{Aborted, Body, Reply, Request};
use flotilla::telemetry::Metrics;
use futures_core::Stream;
use futures_util::StreamExt;
use tokio::sync::Notify;

/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The clocks of a node under test.
pub(crate) fn config() -> DataConfig {
    DataConfig {
        shutdown: Duration::from_secs(10),
        workers: 1,
        head_timeout: Duration::from_secs(30),
        write_stall: Duration::from_secs(30),
        keep_alive: Duration::from_secs(30),
        trusted_proxies: Vec::new(),
        cors_origins: Vec::new(),
    }
}

/// A listener that runs until it is dropped.
pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    pub(crate) life: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handle: ServerHandle,
    /// What the backend saw.
    events: Receiver<&'static str>,
    go: Arc<Notify>,
    /// Ends when the server has.
    pub(crate) ended: Receiver<()>,
}

impl Node {
    /// A node where keys are needed.
    pub(crate) fn start(config: DataConfig) -> Self {
        Self::start_as(config, false)
    }

    /// A node that is open to all, or not.
    pub(crate) fn start_as(config: DataConfig, open: bool) -> Self {
        let life = Arc::new(Lifecycle::new());
        life.advance(Phase::Serving);
        let metrics = Arc::new(Metrics::new());
        let (events_in, events) = mpsc::sync_channel(1024);
        let (ready_in, ready) = mpsc::sync_channel(1024);
        let (ended_in, ended) = mpsc::sync_channel(1024);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let go = Arc::new(Notify::new());
        let parts = (Arc::clone(&life), Arc::clone(&metrics), events_in, Arc::clone(&go));
        thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let make = move || {
                    let (life, metrics, events, go) = parts.clone();
                    Rc::new(Script { life, metrics, events, go, open })
                };
                let server = api::serve_data(config, listener, make).expect("a listener");
                ready_in.send(server.handle()).expect("the test waits for it");
                server.await.expect("the server ends cleanly");
                ended_in.send(()).ok();
            });
        });
        let handle = ready.recv_timeout(PATIENCE).expect("the server starts");
        Self { addr, life, metrics, handle, events, go, ended }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).expect("the node listens"))
    }

    /// Waits for the next thing that the backend sees.
    pub(crate) fn event(&self) -> &'static str {
        self.events.recv_timeout(PATIENCE).expect("the backend sees something")
    }

    /// Lets a request go on that waits for it.
    pub(crate) fn go(&self) {
        self.go.notify_one();
    }

    /// Waits until the backend sees this.
    pub(crate) fn wait_for(&self, event: &str) {
        while self.event() != event {}
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// Does what the header `x-script` says.
pub(crate) struct Script {
    life: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    events: SyncSender<&'static str>,
    go: Arc<Notify>,
    open: bool,
}

impl Backend for Script {
    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.life
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn node(&self) -> &str {
        "node-under-test"
    }

    fn can_serve(&self) -> bool {
        true
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn models(&self, request: &Request) -> Result<Vec<String>, Fault> {
        match request.headers.get("authorization") {
            Some(_) => Ok(vec!["fast".into(), "meta/llama".into()]),
            None => Err(Fault::new(Code::InvalidKey, "No key.")),
        }
    }

    async fn serve(worker: &Rc<Self>, request: Request, mut body: RequestBody) -> Reply {
        let left = Left(worker.events.clone());
        let script =
            request.headers.get("x-script").and_then(|v| v.to_str().ok()).unwrap_or("echo");
        match script {
            "early" => whole(401, "early".into()),
            "refuse" => {
                worker.events.send("reading").ok();
                while body.next().await.is_some() {}
                whole(400, "refused".into())
            }
            "hang" => {
                worker.events.send("hanging").ok();
                std::future::pending::<()>().await;
                drop(left);
                whole(500, String::new())
            }
            "later" => {
                while body.next().await.is_some() {}
                worker.events.send("waiting").ok();
                worker.go.notified().await;
                whole(200, "later".into())
            }
            "silent" => stream(None, left, |_| Poll::Pending),
            "flood" => {
                stream(None, left, |_| Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 64 << 10])))))
            }
            "crumbs" => stream(None, left, |_| Poll::Ready(Some(Ok(Bytes::from_static(b"x"))))),
            "abort" => pieces(None, left, vec![Ok("first "), Ok("second"), Err(Aborted)]),
            "events" => {
                while body.next().await.is_some() {}
                pieces(None, left, vec![Ok("data: 1\n\n"), Ok("data: 2\n\n")])
            }
            "sized" => pieces(Some(6), left, vec![Ok("abc"), Ok("def")]),
            "sized-short" => pieces(Some(6), left, vec![Ok("abc"), Err(Aborted)]),
            _ => {
                let mut len = 0;
                while let Some(piece) = body.next().await {
                    match piece {
                        Ok(piece) => len += piece.len(),
                        Err(_) if script == "deaf" => std::future::pending().await,
                        Err(_) => return whole(400, "broken".into()),
                    }
                }
                whole(200, format!("{} {len} {}", request.client_ip, request.query))
            }
        }
    }
}

/// Tells when it is dropped.
struct Left(SyncSender<&'static str>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.send("dropped").ok();
    }
}

fn whole(status: u16, text: String) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        body: Body::Whole(text.into()),
    }
}

fn pieces(len: Option<u64>, left: Left, pieces: Vec<Result<&'static str, Aborted>>) -> Reply {
    let mut pieces = pieces.into_iter();
    stream(len, left, move |_| Poll::Ready(pieces.next().map(|p| p.map(Bytes::from))))
}

type Next = Poll<Option<Result<Bytes, Aborted>>>;

fn stream(
    len: Option<u64>,
    left: Left,
    next: impl FnMut(&mut Context<'_>) -> Next + Unpin + 'static,
) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    let pieces: Pin<Box<dyn Stream<Item = _>>> = Box::pin(Scripted(next, left));
    Reply { status: StatusCode::OK, headers, body: Body::Stream { len, pieces } }
}

struct Scripted<F>(F, #[expect(dead_code, reason = "it tells when it is dropped")] Left);

impl<F: FnMut(&mut Context<'_>) -> Next + Unpin> Stream for Scripted<F> {
    type Item = Result<Bytes, Aborted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        (self.0)(cx)
    }
}

/// A client that speaks bytes.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    rest: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { socket, rest: Vec::new() }
    }

    /// Sends what it can; a closed connection is seen by reading.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.socket.write_all(bytes.as_ref()).ok();
        self
    }

    /// Sends a POST to the chat endpoint.
    pub(crate) fn post(&mut self, script: &str, headers: &str, body: &str) -> &mut Self {
        let len = body.len();
        self.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-script: {script}\r\n\
             content-length: {len}\r\n{headers}\r\n{body}"
        ))
    }

    pub(crate) fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"));
        self.answer()
    }

    /// Reads bytes until `done` says how many make a whole.
    fn read_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
        loop {
            if let Some(len) = done(&self.rest) {
                return self.rest.drain(..len).collect();
            }
            let mut piece = [0; 4096];
            let n = self.socket.read(&mut piece).expect("an answer comes");
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&self.rest));
            self.rest.extend_from_slice(&piece[..n]);
        }
    }

    /// Reads bytes up to and with this text.
    pub(crate) fn read_past(&mut self, text: &str) -> String {
        let found = self.read_until(|bytes| {
            let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
            Some(at + text.len())
        });
        String::from_utf8(found).expect("text")
    }

    /// Reads one answer whose length is announced.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.read_past("\r\n\r\n");
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer { status, head, body: String::new() };
        let len = answer.header("content-length").map_or(0, |len| len.parse().expect("a number"));
        let body = self.read_until(|bytes| (bytes.len() >= len).then_some(len));
        answer.body = String::from_utf8(body).expect("text");
        answer
    }

    /// Everything until the connection closes, by FIN or by RST.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut piece = [0; 64 << 10];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed");
                    break;
                }
            }
        }
        String::from_utf8(bytes).expect("text")
    }
}
