//! The clients: threads with plain sockets, each request another key, model, user and session.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::children::KEYS;

/// Longer than all clocks of the pool together: who waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Faults that answer at once.
const QUICK: [&str; 13] = [
    "sim-429",
    "sim-500",
    "sim-503",
    "sim-401",
    "sim-context-length",
    "sim-reset",
    "sim-cut",
    "sim-malformed",
    "sim-no-done",
    "sim-cut-clean",
    "sim-error-event",
    "sim-empty",
    "sim-content-filter",
];
/// Faults that take their time.
const SLOW: [&str; 3] = ["sim-stall", "sim-silent", "sim-slow-first-token"];

/// What all clients share.
pub(crate) struct Load {
    node: SocketAddr,
    pub(crate) asked: AtomicU64,
    /// Keys and models that came once.
    keys: AtomicU64,
    models: AtomicU64,
    stop: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
}

/// What is to be thrown.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// How an answer ended.
enum End {
    Whole { status: u16, close: bool },
    Cut(u16),
    Aborted,
    Hung,
}

impl Load {
    pub(crate) fn new(node: SocketAddr) -> Self {
        Self {
            node,
            asked: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            models: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
        }
    }

    /// Starts so many clients.
    pub(crate) fn start(self: &Arc<Self>, threads: usize) -> Vec<JoinHandle<()>> {
        self.stop.store(false, Ordering::Relaxed);
        let client = |number: usize| {
            let load = Arc::clone(self);
            std::thread::spawn(move || load.client(number as u64))
        };
        (0..threads).map(client).collect()
    }

    /// Tells all clients to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn client(&self, number: u64) {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut kept: Option<TcpStream> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let request = self.asked.fetch_add(1, Ordering::Relaxed);
            if dice.below(5) == 0 {
                kept = None;
            }
            let socket = match kept.take().map_or_else(|| TcpStream::connect(self.node), Ok) {
                Ok(socket) => socket,
                Err(error) => {
                    *counts.entry(format!("no connection: {:?}", error.kind())).or_default() += 1;
                    continue;
                }
            };
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
            socket.set_nodelay(true).expect("a socket option");
            let bytes = self.request(request, &mut dice);
            let end = exchange(&socket, &bytes, &mut dice);
            let word = match end {
                Ok(End::Whole { status, close }) => {
                    kept = (!close).then_some(socket);
                    format!("{status}")
                }
                Ok(End::Cut(status)) => format!("{status}, broken off"),
                Ok(End::Aborted) => {
                    if dice.below(2) == 0 {
                        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).ok();
                    }
                    "aborted".to_owned()
                }
                Ok(End::Hung) => "hung".to_owned(),
                Err(error) => format!("no answer: {:?}", error.kind()),
            };
            *counts.entry(word).or_default() += 1;
        }
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (word, count) in counts {
            *all.entry(word).or_default() += count;
        }
    }

    fn count(&self, word: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(word).copied().unwrap_or_default()
    }

    /// How many requests went well.
    pub(crate) fn served(&self) -> u64 {
        self.count("200")
    }

    /// What must never happen.
    pub(crate) fn broken(&self) -> Option<String> {
        let hung = self.count("hung");
        (hung > 0).then(|| format!("{hung} requests got no end within {PATIENCE:?}"))
    }

    /// For people.
    pub(crate) fn report(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> =
            counts.iter().map(|(word, count)| format!("  {count:>9} {word}")).collect();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "{} requests, each with a user and a session of its own; {} unknown keys, {} models:\n{}",
            of(&self.asked),
            of(&self.keys),
            of(&self.models),
            lines.join("\n")
        )
    }

    /// A request like no other.
    fn request(&self, number: u64, dice: &mut Dice) -> Vec<u8> {
        let key = match dice.below(2) {
            0 => format!("sk-unknown-{number}"),
            _ => format!("key-{}", number as usize % KEYS),
        };
        let model = match dice.below(200) {
            0 => SLOW[dice.below(SLOW.len() as u64) as usize].to_owned(),
            1..20 => QUICK[dice.below(QUICK.len() as u64) as usize].to_owned(),
            20..60 => format!("unknown-{number}"),
            _ => format!("soak-{number}"),
        };
        let (path, asks) = match dice.below(20) {
            0 => ("/v1/embeddings".to_owned(), "\"input\":\"hi\"".to_owned()),
            1 => ("/v1/completions".to_owned(), "\"prompt\":\"hi\"".to_owned()),
            2 => (format!("/v1/unknown-{number}"), "\"input\":\"hi\"".to_owned()),
            _ => {
                let text = "x".repeat(if dice.below(50) == 0 { 256 << 10 } else { 200 });
                let stream = dice.below(2) == 0;
                let messages = format!("[{{\"role\":\"user\",\"content\":\"{text}\"}}]");
                let path = "/v1/chat/completions".to_owned();
                (path, format!("\"stream\":{stream},\"messages\":{messages}"))
            }
        };
        self.keys.fetch_add(u64::from(key.starts_with("sk-")), Ordering::Relaxed);
        self.models.fetch_add(u64::from(!model.starts_with("sim-")), Ordering::Relaxed);
        let body = format!("{{\"model\":\"{model}\",\"user\":\"user-{number}\",{asks}}}");
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\nx-session-id: session-{number}\r\n\
         x-request-id: request-{number}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Sends a request and reads its answer, or leaves somewhere on the way: one of five does.
fn exchange(mut socket: &TcpStream, bytes: &[u8], dice: &mut Dice) -> std::io::Result<End> {
    let abort = (dice.below(5) == 0).then(|| dice.below(3));
    if abort == Some(0) {
        let sent = dice.below(bytes.len() as u64) as usize;
        socket.write_all(&bytes[..sent])?;
        return Ok(End::Aborted);
    }
    socket.write_all(bytes)?;
    if abort == Some(1) {
        return Ok(End::Aborted);
    }
    let leave_after = abort.map(|_| dice.below(4000) as usize);
    let mut seen = Vec::with_capacity(4096);
    let mut buffer = [0; 8192];
    loop {
        if leave_after.is_some_and(|limit| seen.len() > limit) {
            return Ok(End::Aborted);
        }
        let read = match socket.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(End::Hung);
            }
            Err(error) if seen.is_empty() => return Err(error),
            Err(_) => 0,
        };
        if read == 0 {
            let status = head(&seen).map(|head| head.status);
            return status.map(End::Cut).ok_or_else(|| ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
        if let Some(head) = head(&seen)
            && head.is_over(&seen)
        {
            // Who meant to leave in the middle of what was shorter than that, leaves now.
            let over = End::Whole { status: head.status, close: head.close };
            return Ok(if abort.is_some() { End::Aborted } else { over });
        }
    }
}

/// What is needed of an answer's head.
struct Head {
    status: u16,
    end: usize,
    length: Option<usize>,
    close: bool,
}

fn head(seen: &[u8]) -> Option<Head> {
    let end = memchr::memmem::find(seen, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&seen[..end]).ok()?.to_ascii_lowercase();
    let status = text.get(9..12)?.parse().ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let length = value("content-length: ").and_then(|length| length.parse().ok());
    let close = value("connection: ").is_some_and(|value| value == "close");
    Some(Head { status, end, length, close })
}

impl Head {
    fn is_over(&self, seen: &[u8]) -> bool {
        let body = &seen[self.end..];
        match self.length {
            Some(length) => body.len() >= length,
            None => body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n",
        }
    }
}
