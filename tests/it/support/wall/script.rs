//! What a wall does about one request.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::log::DEADLINE;

/// Something a script waits for and a test opens, or the other way round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(pub(super) CancellationToken);

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets everyone who waits here, now or later, go on.
    pub(crate) fn open(&self) {
        self.0.cancel();
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until a script opens it with `Script::open`.
    pub(crate) async fn opened(&self) {
        let opened = tokio::time::timeout(DEADLINE, self.0.cancelled()).await;
        opened.expect("the script comes to its gate in time");
    }
}

/// Steps, played one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    /// Pieces that leave apart from each other, so much time between them.
    Pieces(Vec<Bytes>, Duration),
    Open(Gate),
    Wait(Gate),
    WaitUnread(Gate),
    Pause(Duration),
    PauseUnread(Duration),
    /// The rest of the request: so many bytes at a time, so much time between.
    Read(usize, Duration),
    /// The rest of the request, of which nothing is kept.
    Discard,
    Reset,
    Close,
    Cut,
    HalfClose,
    Stall,
    Freeze,
}

impl Script {
    /// No steps yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Answers with JSON.
    pub(crate) fn json(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::new().send(answer(status, &[("content-type", "application/json")], body))
    }

    /// Answers with a whole stream of events, `[DONE]` included.
    pub(crate) fn sse<T: AsRef<str>>(events: impl IntoIterator<Item = T>) -> Self {
        let script = Self::sse_head();
        events.into_iter().fold(script, |script, event| script.event(event)).done()
    }

    /// The head of a chunked stream of events; `event`, `done`, `end_chunks` go on from there.
    pub(crate) fn sse_head() -> Self {
        Self::new().send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
    }

    /// The bytes of a whole answer that is a stream of these events.
    pub(crate) fn sse_bytes(events: &[&str]) -> Bytes {
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        answer(200, &[("content-type", "text/event-stream")], body)
    }

    /// One event with this data, as one chunk.
    pub(crate) fn event(self, data: impl AsRef<str>) -> Self {
        self.send(chunk(format!("data: {}\n\n", data.as_ref())))
    }

    /// The `[DONE]` event and the last chunk.
    pub(crate) fn done(self) -> Self {
        self.event("[DONE]").end_chunks()
    }

    /// All steps of another script, after those of this one.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self
    }

    /// The last chunk.
    pub(crate) fn end_chunks(self) -> Self {
        self.send("0\r\n\r\n")
    }

    /// Sends these bytes.
    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// As `send`, without a copy of its own.
    pub(crate) fn send_shared(self, bytes: &Bytes) -> Self {
        self.step(Step::Send(bytes.clone()))
    }

    /// Sends these bytes, cut at these offsets, a few milliseconds between the pieces so that a
    /// client reads them one by one.
    pub(crate) fn split(self, bytes: impl AsRef<[u8]>, offsets: &[usize]) -> Self {
        let mut rest = Bytes::copy_from_slice(bytes.as_ref());
        let mut done = 0;
        let mut pieces = Vec::new();
        for &offset in offsets {
            pieces.push(rest.split_to(offset.saturating_sub(done).min(rest.len())));
            done = offset;
        }
        pieces.push(rest);
        self.step(Step::Pieces(pieces, Duration::from_millis(3)))
    }

    /// Sends these bytes one by one, as fast as that goes: the client reads one or few at a time.
    pub(crate) fn bytewise(self, bytes: impl AsRef<[u8]>) -> Self {
        let pieces = bytes.as_ref().iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
        self.step(Step::Pieces(pieces.collect(), Duration::ZERO))
    }

    /// Opens a gate: tells the test that the steps before this one are done, and that what they
    /// sent is in the kernel's hands.
    pub(crate) fn open(self, gate: &Gate) -> Self {
        self.step(Step::Open(gate.clone()))
    }

    /// Waits until the test opens the gate, or the client closes.
    pub(crate) fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Waits this long, or until the client closes.
    pub(crate) fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// The same steps, once the test has opened the gate.
    pub(crate) fn after(self, gate: &Gate) -> Self {
        Self::new().wait(gate).then(self)
    }

    /// Reads the rest of the request (of a wall that is `early`) and keeps nothing of it.
    pub(crate) fn discard(self) -> Self {
        self.step(Step::Discard)
    }

    /// As `wait`, but reads nothing meanwhile, and so does not see the client close.
    pub(crate) fn wait_unread(self, gate: &Gate) -> Self {
        self.step(Step::WaitUnread(gate.clone()))
    }

    /// Waits a moment, reading nothing, for what was sent to arrive before what follows.
    pub(crate) fn pause_unread(self) -> Self {
        self.step(Step::PauseUnread(Duration::from_millis(20)))
    }

    /// Reads the rest of the request (of a wall that is `early`).
    pub(crate) fn read(self) -> Self {
        self.read_slowly(usize::MAX, Duration::ZERO)
    }

    /// Reads the rest of the request (of a wall that is `early`), so many bytes, then a pause, and so on.
    pub(crate) fn read_slowly(self, bytes: usize, pause: Duration) -> Self {
        self.step(Step::Read(bytes, pause))
    }

    /// Resets the connection (RST), and throws away what was not sent yet.
    pub(crate) fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Closes the connection as a well-behaved server does: over TLS with a close_notify.
    pub(crate) fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// Closes the connection without a close_notify; the same as `close` in plain text.
    pub(crate) fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Ends the sending direction and goes on reading, until the client closes too.
    pub(crate) fn half_close(self) -> Self {
        self.step(Step::HalfClose)
    }

    /// Does nothing until the client closes; reads and drops whatever still comes.
    pub(crate) fn stall(self) -> Self {
        self.step(Step::Stall)
    }

    /// Does nothing and reads nothing, until the wall ends. Does not see the client close.
    pub(crate) fn freeze(self) -> Self {
        self.step(Step::Freeze)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// A whole answer with a content-length.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Bytes {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    [bytes.as_bytes(), b"\r\n", body].concat().into()
}

/// One chunk of a chunked body.
pub(crate) fn chunk(data: impl AsRef<[u8]>) -> Bytes {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat().into()
}
