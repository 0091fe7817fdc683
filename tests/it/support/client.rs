//! A client on raw TCP that sees what really came: framing, truncation, every byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No single read of a test waits longer: a node that hangs fails the test instead of the suite.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says; false is what a client sees as a broken answer.
    pub(crate) complete: bool,
}

/// The head of an answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let json = serde_json::from_slice(&self.body);
        assert!(json.is_ok(), "not JSON: {}", self.text());
        json.expect("it was just seen to be")
    }

    /// The `error.code` of the body.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
    let first = found.next();
    assert!(found.next().is_none(), "header {name} stands more than once: {headers:?}");
    first.map(|(_, value)| value.as_str())
}

/// The bytes of a POST with a JSON body.
pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request.push_str("content-type: application/json\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [request.as_bytes(), body].concat()
}

/// The bytes of a GET.
pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// A chat request for `model`.
pub(crate) fn chat(model: &str, stream: bool) -> Vec<u8> {
    format!(
        r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
    .into_bytes()
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(crate) async fn ask(addr: SocketAddr, request: &[u8]) -> Response {
    let mut client = Client::connect(addr).await;
    client.send(request).await;
    client.response().await
}

/// Posts a chat request and reads the whole answer.
pub(crate) async fn ask_chat(addr: SocketAddr, model: &str, stream: bool) -> Response {
    ask(addr, &post("/v1/chat/completions", &[], &chat(model, stream))).await
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.expect("the connection is accepted")
    }

    /// A connection; none where nobody accepts it.
    pub(crate) async fn try_connect(addr: SocketAddr) -> Option<Self> {
        let connected = timeout(PATIENCE, TcpStream::connect(addr)).await;
        let socket = connected.expect("the connection is accepted or refused in time").ok()?;
        socket.set_nodelay(true).expect("a socket option");
        Some(Self { socket, buffer: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server may refuse a request before it has read all of it.
        drop(timeout(PATIENCE, self.socket.write_all(bytes)).await.expect("the bytes are taken"));
    }

    /// Reads more bytes; false at the end of the connection.
    async fn more(&mut self) -> bool {
        self.buffer.reserve(64 * 1024);
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the server sends or closes in time"), Ok(count) if count > 0)
    }

    /// Reads up to and including `mark`; none where the connection ends before.
    pub(crate) async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, mark) {
                return Some(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of the next answer; none where the connection ended before it.
    pub(crate) async fn try_head(&mut self) -> Option<Head> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.split(' ').nth(1).expect("a status").parse().expect("a number");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header line");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Some(Head { status, headers: headers.collect() })
    }

    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.expect("an answer")
    }

    /// The next chunk of a chunked body; none at its clean end, `Err` where it broke off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let size = self.until(b"\r\n").await.ok_or(())?;
        let size = std::str::from_utf8(&size).map_err(|_| ())?.trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| ())?;
        while self.buffer.len() < size + 2 {
            if !self.more().await {
                return Err(());
            }
        }
        let chunk: Vec<u8> = self.buffer.drain(..size + 2).take(size).collect();
        Ok(if size == 0 { None } else { Some(chunk) })
    }

    /// The rest of the body of an answer with this head, and whether it is complete.
    pub(crate) async fn body(&mut self, head: &Head) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        if head.header("transfer-encoding").is_some() {
            loop {
                match self.chunk().await {
                    Ok(Some(chunk)) => body.extend(chunk),
                    Ok(None) => return (body, true),
                    Err(()) => return (body, false),
                }
            }
        }
        let length = head.header("content-length");
        let length: Option<usize> = length.map(|text| text.parse().expect("a length"));
        let Some(length) = length else { return (body, head.status == 204) };
        while self.buffer.len() < length {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..length).collect(), true)
    }

    /// The next answer, whole.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let (body, complete) = self.body(&head).await;
        Response { status: head.status, headers: head.headers, body, complete }
    }

    /// Waits until the server has closed the connection; false where it sends more instead.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// Says that no more will be sent, and goes on reading.
    pub(crate) async fn half_close(&mut self) {
        self.socket.shutdown().await.expect("a connection to close");
    }

    /// Reads and drops what comes until the connection ends.
    pub(crate) async fn drain(&mut self) {
        while self.more().await {
            self.buffer.clear();
        }
    }

    /// Closes the connection at once, with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.socket);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket option");
    }
}
