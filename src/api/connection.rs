//! A client's connection: the socket under actix's HTTP/1.1, with the deadlines that actix lacks.
//!
//! actix times the first head of a connection and nothing else. Here, between its dispatcher and
//! the socket, every head has a deadline, an unused connection ends, and a client that reads
//! nothing of its answer is let go, which drops the answer and with it the call upstream. A
//! trusted balancer may name the client with PROXY v2 before the first request, and what actix
//! says by itself (to a request that is not HTTP) is said in the shape of every other error.
//!
//! One timer serves all clocks. It fires at least once per shortest clock, whatever happens, and
//! looks at the deadlines then; so a request arms nothing, and no deadline is ever missed.

mod gate;
mod proxy_v2;
mod state;
mod turn;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use gate::Gate;
use proxy_v2::Intro;
use state::Overdue;
pub(super) use state::{Clocks, Conn, Serving};

use super::client_ip;
use super::data::Listener;
use super::error;
use crate::domain::{Code, Fault};
use crate::telemetry::Held;

/// A silent connection is probed after this time, so that a client whose network vanished during
/// a long silence is noticed although nothing is sent to it.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// The kernel gives a client up that acknowledges nothing for so long. Our own clock is for one
/// that is there and does not read; this one also sees a client whose network is gone, at a probe.
const VANISHED: Duration = Duration::from_secs(60);

/// Whatever the clocks say, the timer does not spin.
const MIN_STEP: Duration = Duration::from_millis(1);

/// How much of what a refused client still sends is read before the connection closes: closing
/// over unread bytes makes the kernel reset it, and the client then loses our answer.
const DRAIN: usize = 256 << 10;

/// The IO type under actix's dispatcher.
#[derive(Debug)]
pub(super) struct ClientIo {
    socket: TcpStream,
    conn: Rc<Conn>,
    listener: Rc<Listener>,
    intro: Start,
    gate: Gate,
    /// Whole requests that were handed on.
    handed_on: u64,
    /// Bytes of a next request.
    ahead: BytesMut,
    /// There were too many of them.
    flooded: bool,
    timer: Pin<Box<Sleep>>,
    /// The shortest clock: how often the timer fires at least.
    step: Duration,
    /// The timer fired; each side looks at its own deadline once.
    look_read: bool,
    look_write: bool,
    /// Since when the socket takes nothing.
    stalled: Option<Instant>,
    /// No request is taken any more: the dispatcher sees the end of the stream.
    closed: bool,
    /// Counts the connection while it is open.
    _open: Held,
}

/// The first bytes of a connection.
#[derive(Debug)]
enum Start {
    /// From a trusted peer: they may be a PROXY header.
    Unknown(Vec<u8>),
    /// They were none, and are to be handed on from this place.
    Held(Vec<u8>, usize),
    /// Over.
    Done,
}

impl ClientIo {
    /// Takes an accepted connection over.
    ///
    /// # Errors
    /// A peer that is gone already.
    pub(super) fn accept(socket: TcpStream, listener: Rc<Listener>) -> io::Result<Self> {
        let peer = socket.peer_addr()?.ip().to_canonical();
        let clocks = listener.clocks();
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        options.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER))?;
        options.set_tcp_user_timeout(Some(clocks.write_stall.max(VANISHED)))?;
        let intro = if client_ip::is_trusted(peer, listener.trusted()) {
            Start::Unknown(Vec::with_capacity(proxy_v2::FIXED))
        } else {
            Start::Done
        };
        let step = clocks.head.min(clocks.keep_alive).min(clocks.write_stall).max(MIN_STEP);
        Ok(Self {
            socket,
            conn: Conn::new(peer, clocks, Instant::now()),
            _open: listener.opened(),
            listener,
            intro,
            gate: Gate::new(),
            handed_on: 0,
            ahead: BytesMut::new(),
            flooded: false,
            timer: Box::pin(sleep(step)),
            step,
            look_read: false,
            look_write: false,
            stalled: None,
            closed: false,
        })
    }

    /// What the requests on this connection share with it.
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// The address that actix knows the client by.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    fn write_deadline(&self) -> Option<Instant> {
        self.stalled.map(|since| since + self.conn.clocks().write_stall)
    }

    /// Looks at the timer. It stays armed, and `cx` is woken when it fires.
    fn tick(&mut self, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let read = self.conn.deadline().map(|(at, _)| at);
            let write = self.write_deadline();
            self.look_read |= read.is_some_and(|at| at <= now);
            self.look_write |= write.is_some_and(|at| at <= now);
            if self.look_read || self.look_write {
                // The side that must act may not be the one that was polled.
                cx.waker().wake_by_ref();
            }
            let to_come = [read, write].into_iter().flatten().filter(|at| *at > now);
            let next = to_come.min().unwrap_or(now + self.step).min(now + self.step);
            self.timer.as_mut().reset(next.into());
        }
    }

    /// Called when there is nothing to read: true where the connection is at its end.
    fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        self.tick(cx);
        if !std::mem::take(&mut self.look_read) {
            return false;
        }
        let Some((at, overdue)) = self.conn.deadline() else { return false };
        if at > Instant::now() {
            return false;
        }
        if overdue == Overdue::Head && self.conn.is_quiet() {
            let fault = Fault::new(Code::RequestTimeout, error::HEAD_TIMEOUT);
            let answer = self.listener.refusal(&fault, fault.code.status());
            // Best effort: the connection closes in any case.
            self.say(cx, &answer);
        }
        self.closed = true;
        true
    }

    /// Writes an answer of our own past actix. It is short, and nothing is before it.
    fn say(&mut self, cx: &mut Context<'_>, mut answer: &[u8]) {
        while let Poll::Ready(Ok(n)) = Pin::new(&mut self.socket).poll_write(cx, answer) {
            answer = answer.get(n..).unwrap_or_default();
            if answer.is_empty() {
                break;
            }
        }
    }

    /// Reads the first bytes of a trusted peer until it is clear what they are.
    fn poll_intro(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Start::Unknown(bytes) = &mut self.intro {
            match proxy_v2::read(bytes) {
                Intro::Absent => self.intro = Start::Held(std::mem::take(bytes), 0),
                Intro::Complete(client) => {
                    if let Some(ip) = client {
                        self.conn.set_client(ip);
                    }
                    self.intro = Start::Done;
                }
                Intro::Malformed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Intro::Need(len) => {
                    // Never more than the header: what follows is the request.
                    let mut piece = [0; 256];
                    let room = (len - bytes.len()).min(piece.len());
                    let mut piece = ReadBuf::new(piece.get_mut(..room).unwrap_or_default());
                    ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece))?;
                    if piece.filled().is_empty() {
                        // The end: the dispatcher shall see it after what came.
                        self.intro = Start::Held(std::mem::take(bytes), 0);
                    } else {
                        bytes.extend_from_slice(piece.filled());
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.intro, Start::Done) {
            ready!(self.poll_intro(cx))?;
            if let Start::Held(bytes, at) = &mut self.intro {
                let rest = bytes.get(*at..).unwrap_or_default();
                let taken = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..taken).unwrap_or_default());
                *at += taken;
                if *at == bytes.len() {
                    self.intro = Start::Done;
                }
                if taken > 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A client that sends without a pause is never waited for below.
        if self.closed || self.conn.is_draining() && self.overdue(cx) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match self.poll_request(cx, buf) {
            Poll::Pending if self.overdue(cx) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(done) => {
                if buf.filled().len() > before {
                    self.conn.received();
                } else {
                    self.conn.gone();
                }
                Poll::Ready(done)
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.conn.is_quiet()
            && let Some(fault) = error::of_actix(bytes)
        {
            let answer = self.listener.refusal(&fault.0, fault.1);
            self.say(cx, &answer);
            self.closed = true;
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut self.socket).poll_write(cx, bytes) {
            Poll::Ready(done) => {
                self.stalled = None;
                Poll::Ready(done)
            }
            // It sends no more and reads nothing now: actix would wait for it before it drops what
            // the client left.
            Poll::Pending if self.conn.is_gone() => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            Poll::Pending => {
                self.stalled.get_or_insert_with(Instant::now);
                self.tick(cx);
                let overdue = std::mem::take(&mut self.look_write)
                    && self.write_deadline().is_some_and(|at| at <= Instant::now());
                if overdue {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush; the dispatcher asks once all bytes are taken.
        self.conn.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.conn.is_cut_short() {
            // Nothing but a reset tells the client that it did not get all.
            SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).ok();
            return;
        }
        let mut scratch = [0; 4096];
        let mut read = 0;
        // Only what is here already; what is on its way cannot be waited for.
        while read < DRAIN {
            match self.socket.try_read(&mut scratch) {
                Ok(n) if n > 0 => read += n,
                _ => break,
            }
        }
    }
}
