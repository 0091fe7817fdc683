//! A wall for many: it answers requests with the usage that they ask for, and writes down what it
//! emitted, when, and whether all of it left.
//!
//! What it is to do stands in the first message, the prompt, or the input: `ask=7 hold=200 in=12 out=30 status=200`, where
//! `hold` is in milliseconds. Answers that are held come in pieces where a stream is asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::request::{Head, take_head};
use super::script::{answer, chunk};
use crate::judge::history::{Attempt, Micros, Usage};

/// What a token costs in micro-USD, of the prompt and of the answer.
pub(crate) const PRICE: (u64, u64) = (1, 2);

/// A stream that is held comes in so many pieces.
const PIECES: u32 = 4;

/// A wall that emits usage.
pub(crate) struct Emitter {
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What was emitted.
struct Log {
    begun: Instant,
    attempts: Mutex<Vec<Attempt>>,
}

/// What is asked of the wall.
struct Order {
    ask: u64,
    hold: Duration,
    status: u16,
    usage: Usage,
    kind: Kind,
    stream: bool,
    asks_usage: bool,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Completion,
    Embedding,
}

impl Emitter {
    /// Listens; its clock begins at `begun`.
    pub(crate) fn start(begun: Instant) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        let log = Arc::new(Log { begun, attempts: Mutex::default() });
        let stop = CancellationToken::new();
        let thread = std::thread::Builder::new().name("emitter".into()).spawn({
            let (log, stop) = (Arc::clone(&log), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(listen(listener, log, stop));
            }
        });
        Self { address, log, stop, thread: Some(thread.expect("a thread")) }
    }

    /// Where it listens, as a fleet document wants it.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything so far.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.log.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many attempts came so far.
    pub(crate) fn count(&self) -> usize {
        self.log.attempts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Emitter {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn listen(listener: std::net::TcpListener, log: Arc<Log>, stop: CancellationToken) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else { continue };
        connections.spawn(serve(tcp, Arc::clone(&log)));
        while connections.try_join_next().is_some() {}
    }
}

/// Serves a connection until one side closes.
async fn serve(mut tcp: TcpStream, log: Arc<Log>) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = BytesMut::new();
    loop {
        let head: Head = loop {
            match take_head(&mut buffer) {
                Some(head) => break head,
                None if !more(&mut tcp, &mut buffer).await => return,
                None => {}
            }
        };
        let (mut rest, mut body) = (head.rest(), BytesMut::new());
        while !rest.take(&mut buffer, &mut body) {
            if !more(&mut tcp, &mut buffer).await {
                return;
            }
        }
        let order = Order::read(&head.path, &body);
        let place = log.begin(order.ask);
        if play(&mut tcp, &mut buffer, &order, &log, place).await.is_none() {
            return;
        }
        log.end(place);
    }
}

async fn more(tcp: &mut TcpStream, buffer: &mut BytesMut) -> bool {
    matches!(tcp.read_buf(buffer).await, Ok(1..))
}

/// Answers; none where the client closed before the end.
async fn play(
    tcp: &mut TcpStream,
    buffer: &mut BytesMut,
    order: &Order,
    log: &Log,
    place: usize,
) -> Option<()> {
    let kind = |name| [("content-type", name)];
    if !order.stream || order.status != 200 {
        pause(tcp, buffer, order.hold).await?;
        log.emit(place, if order.status == 200 { order.usage } else { Usage::default() });
        let bytes = answer(order.status, &kind("application/json"), order.plain().to_string());
        return tcp.write_all(&bytes).await.ok();
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.ok()?;
    let event = |value: Value| chunk(format!("data: {value}\n\n"));
    let choice = |text: &str, finish: Value| {
        let choice = match order.kind {
            Kind::Chat if text.is_empty() => {
                json!({ "index": 0, "delta": {}, "finish_reason": finish })
            }
            Kind::Chat => {
                json!({ "index": 0, "delta": { "content": text }, "finish_reason": finish })
            }
            _ => json!({ "index": 0, "text": text, "finish_reason": finish }),
        };
        json!({ "id": "a", "object": "chunk", "model": "m", "choices": [choice] })
    };
    for _ in 0..PIECES {
        let words = event(choice("ahoy ", Value::Null));
        tcp.write_all(&words).await.ok()?;
        pause(tcp, buffer, order.hold / PIECES).await?;
    }
    let mut last = event(choice("", json!("stop"))).to_vec();
    if order.asks_usage {
        let told = json!({ "id": "a", "object": "chunk", "model": "m", "choices": [],
            "usage": order.told() });
        last.extend_from_slice(&event(told));
    }
    last.extend_from_slice(&chunk("data: [DONE]\n\n"));
    last.extend_from_slice(b"0\r\n\r\n");
    log.emit(place, order.usage);
    tcp.write_all(&last).await.ok()
}

/// Waits; none where the client closes meanwhile.
async fn pause(tcp: &mut TcpStream, buffer: &mut BytesMut, time: Duration) -> Option<()> {
    let until = tokio::time::Instant::now() + time;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Some(()),
            read = more(tcp, buffer) => if !read { return None },
        }
    }
}

impl Order {
    fn read(path: &str, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).expect("a request of ours");
        let (kind, text) = match path {
            "/v1/completions" => (Kind::Completion, &body["prompt"]),
            "/v1/embeddings" => (Kind::Embedding, &body["input"]),
            _ => (Kind::Chat, &body["messages"][0]["content"]),
        };
        let text = text.as_str().unwrap_or_default();
        let number = |name: &str| {
            let value = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let input = number("in").unwrap_or(1);
        let output = if kind == Kind::Embedding { 0 } else { number("out").unwrap_or(1) };
        let cost = input * PRICE.0 + output * PRICE.1;
        Self {
            ask: number("ask").expect("a request of ours has a number"),
            hold: Duration::from_millis(number("hold").unwrap_or(0)),
            status: number("status").map_or(200, |it| u16::try_from(it).expect("a status")),
            usage: Usage { input, output, cost },
            kind,
            stream: body["stream"] == true,
            asks_usage: body["stream_options"]["include_usage"] == true,
        }
    }

    fn told(&self) -> Value {
        let Usage { input, output, .. } = self.usage;
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
    }

    fn plain(&self) -> Value {
        if self.status != 200 {
            return json!({ "error": { "message": "as ordered", "type": "server_error" } });
        }
        let usage = self.told();
        let choice = match self.kind {
            Kind::Embedding => {
                let vector = json!([{ "object": "embedding", "index": 0, "embedding": [0.5] }]);
                return json!({ "object": "list", "model": "m", "data": vector, "usage": usage });
            }
            Kind::Chat => json!({ "index": 0, "finish_reason": "stop",
                "message": { "role": "assistant", "content": "ahoy" } }),
            Kind::Completion => json!({ "index": 0, "finish_reason": "stop", "text": "ahoy" }),
        };
        json!({ "id": "a", "object": "answer", "model": "m", "usage": usage, "choices": [choice] })
    }
}

impl Log {
    fn now(&self) -> Micros {
        Micros::try_from(self.begun.elapsed().as_micros()).expect("a test is short")
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Attempt>, Micros) -> T) -> T {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut attempts, self.now())
    }

    fn begin(&self, ask: u64) -> usize {
        let told = Usage::default();
        self.with(|attempts, now| {
            attempts.push(Attempt { ask, at: now, until: now, told, whole: false });
            attempts.len() - 1
        })
    }

    /// The last piece leaves now.
    fn emit(&self, place: usize, told: Usage) {
        self.with(|attempts, now| (attempts[place].until, attempts[place].told) = (now, told));
    }

    fn end(&self, place: usize) {
        self.with(|attempts, _| attempts[place].whole = true);
    }
}
