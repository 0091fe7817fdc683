//! Many clients, and the book in which is written what each of them and the wall saw.
//!
//! ```ignore
//! let crowd = Crowd::new();                                   // with a wall of its own
//! let fleet = spawn_fleet(0, 8, &document(crowd.base_url()), &env);
//! crowd.meets(&fleet.addresses());
//! let asks = (0..5000).map(|_| crowd.ask(crowd.any(), Wish::of("sk-a").tokens(10, 90)));
//! join_all(asks).await;
//! let history = History { limits, ..crowd.history() };
//! check(&history).assert_good(&history);
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Client, Head, post};
use super::wall::{Emitter, PRICE};
use crate::judge::history::{Ask, Attempt, End, History, Micros, Usage};

/// Whoever waits longer leaves.
const PATIENCE: Duration = Duration::from_secs(45);

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) key: String,
    pub(crate) model: String,
    /// What is asked for, below `/v1`.
    pub(crate) path: &'static str,
    pub(crate) row: String,
    pub(crate) stream: bool,
    /// How long the wall takes.
    pub(crate) hold: Duration,
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// `max_tokens`; none is asked for at 0.
    pub(crate) most: u64,
    /// What the wall answers.
    pub(crate) status: u16,
    /// When the client leaves.
    pub(crate) leave: Option<Duration>,
}

impl Wish {
    /// A short plain answer, for this key.
    pub(crate) fn of(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            model: "p".to_owned(),
            path: "/chat/completions",
            row: String::new(),
            stream: false,
            hold: Duration::ZERO,
            input: 10,
            output: 10,
            most: 20,
            status: 200,
            leave: None,
        }
    }

    /// An answer of so many tokens, of at most so many.
    pub(crate) fn tokens(mut self, output: u64, most: u64) -> Self {
        (self.output, self.most) = (output, most);
        self
    }

    /// As a stream.
    pub(crate) fn streamed(mut self) -> Self {
        self.stream = true;
        self
    }

    /// An answer that takes this long.
    pub(crate) fn held(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// From a client that leaves after this time.
    pub(crate) fn left_after(mut self, time: Duration) -> Self {
        self.leave = Some(time);
        self
    }

    fn body(&self, id: u64) -> String {
        let Self { model, stream, hold, input, output, most, status, .. } = self;
        let hold = hold.as_millis();
        let most = if *most == 0 { String::new() } else { format!("\"max_tokens\":{most},") };
        let order = format!("ask={id} hold={hold} in={input} out={output} status={status}");
        let order = match self.path {
            "/completions" => format!(r#""prompt":"{order}""#),
            "/embeddings" => return format!(r#"{{"model":"{model}","input":"{order}"}}"#),
            _ => format!(r#""messages":[{{"role":"user","content":"{order}"}}]"#),
        };
        format!(r#"{{"model":"{model}","stream":{stream},{most}{order}}}"#)
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) whole: bool,
}

impl Answer {
    /// The code of its error.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Clients, wall, and book.
pub(crate) struct Crowd {
    pub(crate) begun: Instant,
    pub(crate) wall: Emitter,
    nodes: Mutex<Vec<SocketAddr>>,
    asks: Mutex<Vec<Ask>>,
    next: AtomicU64,
    turn: AtomicUsize,
}

impl Crowd {
    /// No nodes yet.
    pub(crate) fn new() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            wall: Emitter::start(begun),
            nodes: Mutex::default(),
            asks: Mutex::default(),
            next: AtomicU64::new(1),
            turn: AtomicUsize::new(0),
        }
    }

    /// The nodes that are asked, from 0.
    pub(crate) fn meets(&self, nodes: &[SocketAddr]) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes.to_vec();
    }

    /// One node after the other.
    pub(crate) fn any(&self) -> usize {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.turn.fetch_add(1, Ordering::Relaxed) % nodes
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> Micros {
        Micros::try_from(self.begun.elapsed().as_micros()).expect("a test is short")
    }

    /// Asks a node on a connection of its own, and writes down what came of it.
    pub(crate) async fn ask(&self, node: usize, wish: Wish) -> Option<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let address = self.nodes.lock().unwrap_or_else(PoisonError::into_inner)[node];
        let body = wish.body(id);
        let bearer = format!("Bearer {}", wish.key);
        let headers = [("authorization", bearer.as_str()), ("connection", "close")];
        let request = post(&format!("/v1{}", wish.path), &headers, body.as_bytes());
        let patience = wish.leave.unwrap_or(PATIENCE);
        let sent = self.now();
        let came = tokio::time::timeout(patience, exchange(address, &request)).await;
        let over = self.now();
        let (end, answer) = match came {
            Err(_) => (End::Left, None),
            Ok(None) => (End::Broken, None),
            Ok(Some(answer)) => {
                let (status, code, whole) = (answer.head.status, answer.code(), answer.whole);
                (End::Answered { status, code, whole }, Some(answer))
            }
        };
        let cost = |input, output| input * PRICE.0 + output * PRICE.1;
        let bytes = body.len() as u64;
        let answers = if wish.path == "/embeddings" { 0 } else { wish.most };
        let least = Usage { input: 0, output: answers, cost: cost(0, answers) };
        // Nobody estimates more than a token for each byte; without a most, anything may be.
        let most = if wish.most == 0 { 100_000 } else { wish.most };
        let most = Usage { input: bytes, output: most, cost: cost(bytes, most) };
        let row = if wish.row.is_empty() { wish.key.clone() } else { wish.row };
        let ask = Ask { id, who: wish.key, row, node, sent, over, end, least, most };
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).push(ask);
        answer
    }

    /// What the wall has seen.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.wall.attempts()
    }

    /// All that was seen so far; limits, faults and an end are to be added.
    pub(crate) fn history(&self) -> History {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        History { asks, attempts: self.attempts(), ..History::default() }
    }
}

async fn exchange(address: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut client = Client::try_connect(address).await?;
    client.send(request).await;
    let head = client.try_head().await?;
    let (body, whole) = client.body(&head).await;
    Some(Answer { head, body, whole })
}
