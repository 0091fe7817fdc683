//! The connection as `awc` sees it: one request, one answer, then an empty shell.
//!
//! This is where silent losses become errors. Plain `awc` takes a close in mid-body for the end,
//! an informational head for the answer, and a broken pipe during an upload for a failure even
//! where the answer that explains it has come. Here every byte of an answer is followed (`head`,
//! `framing`), so that:
//!
//! - a close is an end only where the framing says so, else a fault that `Exchange` records;
//! - the connection goes back to its site at the last byte of the answer, if the request went out
//!   whole, nothing came behind the answer and nobody asked for a close; otherwise it is closed;
//! - what the codec may see ends at the last byte of the answer: bytes behind it reach nobody;
//! - while an upload is stuck, the answer is looked for. A final one ends the upload: what is left
//!   of it is thrown away, as it is after a write fails, and reading tells what happened.
//!
//! One such value carries one exchange. Whatever `awc` does with the shell afterwards, it reads
//! the end of a stream there and cannot write: no other request ever meets this connection's bytes
//! but through the site.

use std::cell::Cell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::framing::{Body, Malformed};
use super::head::{Head, MAX_HEAD, Sniffed, sniff};
use super::site::Site;
use super::socket::Connection;

/// What is known of an exchange from the connection's side; the answer's body looks at it too.
#[derive(Debug)]
pub(super) struct Exchange {
    reused: bool,
    begun: Instant,
    heard: Cell<bool>,
    patched: Cell<bool>,
    end: Cell<End>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Not yet.
    Open,
    /// With the last byte of the answer.
    Complete,
    /// The connection closed or broke before that.
    Broken,
    /// What came is not HTTP.
    Malformed,
}

/// A connection during one exchange.
#[derive(Debug)]
pub(super) struct Io {
    /// `None` once the exchange ended.
    connection: Option<Connection>,
    exchange: Rc<Exchange>,
    site: Weak<Site>,
    to_head: bool,
    /// Bytes of a head that is not complete.
    stash: BytesMut,
    /// Bytes of informational heads so far.
    interim: usize,
    /// Bytes that wait for the codec.
    out: BytesMut,
    /// What is left of the body, once the final head came.
    body: Option<Body>,
    keep: bool,
    /// Some of the request is not handed to the kernel.
    unsent: bool,
    /// The rest of the request is thrown away.
    cut: bool,
}

// === impl Exchange ===

impl Exchange {
    /// An exchange on a connection that was or was not used before.
    pub(super) fn new(reused: bool) -> Rc<Self> {
        Rc::new(Self {
            reused,
            begun: Instant::now(),
            heard: Cell::new(false),
            patched: Cell::new(false),
            end: Cell::new(End::Open),
        })
    }

    /// How it ended.
    pub(super) fn end(&self) -> End {
        self.end.get()
    }

    /// True where header names were hidden from the codec.
    pub(super) fn is_patched(&self) -> bool {
        self.patched.get()
    }

    /// True where the provider had most likely closed the connection before the request came: it
    /// was used before, not one byte of an answer arrived, and it broke at once. Asked when the
    /// exchange has just failed.
    pub(super) fn is_stale(&self, within: Duration) -> bool {
        self.reused
            && !self.heard.get()
            && self.end.get() == End::Broken
            && self.begun.elapsed() < within
    }
}

// === impl Io ===

impl Io {
    /// Puts a connection to work. `to_head`: the request is a HEAD.
    pub(super) fn new(
        connection: Connection,
        exchange: Rc<Exchange>,
        site: &Rc<Site>,
        to_head: bool,
    ) -> Self {
        Self {
            connection: Some(connection),
            exchange,
            site: Rc::downgrade(site),
            to_head,
            stash: BytesMut::new(),
            interim: 0,
            out: BytesMut::new(),
            body: None,
            keep: false,
            unsent: true,
            cut: false,
        }
    }

    /// Takes in what was read and says how many of these bytes the codec may have as they are;
    /// the others are in `stash` or `out`, or are nobody's.
    fn take_in(&mut self, bytes: &mut [u8]) -> Result<usize, io::Error> {
        self.exchange.heard.set(true);
        if self.body.is_some() {
            return Ok(self.take_body(bytes));
        }
        // A head that comes in one piece, as nearly all do, is not copied.
        if self.stash.is_empty()
            && let Sniffed::Final(head) = self.check(sniff(bytes, self.to_head))?
        {
            let len = head.len;
            self.begin(&head);
            return Ok(len + self.take_body(bytes.get(len..).unwrap_or_default()));
        }
        self.stash.extend_from_slice(bytes);
        self.take_stash()?;
        Ok(0)
    }

    /// Looks for the final head in the stash and drops informational ones. True if it is there.
    fn take_stash(&mut self) -> Result<bool, io::Error> {
        loop {
            let sniffed = sniff(&mut self.stash, self.to_head);
            match self.check(sniffed)? {
                Sniffed::Partial => return Ok(false),
                Sniffed::Interim(len) => {
                    self.stash.advance(len);
                    self.interim += len;
                    if self.interim > MAX_HEAD {
                        return Err(self.fail(End::Malformed));
                    }
                }
                Sniffed::Final(head) => {
                    let mut came = mem::take(&mut self.stash);
                    self.begin(&head);
                    let taken = self.take_body(came.get(head.len..).unwrap_or_default());
                    came.truncate(head.len + taken);
                    self.out = came;
                    return Ok(true);
                }
            }
        }
    }

    fn begin(&mut self, head: &Head) {
        self.exchange.patched.set(head.patched);
        self.body = Some(head.body);
        self.keep = head.keep;
    }

    /// Follows the body and says how many of the bytes belong to it.
    fn take_body(&mut self, bytes: &[u8]) -> usize {
        let Some(body) = &mut self.body else { return 0 };
        let taken = body.feed(bytes);
        if body.is_malformed() {
            // The codec gets what was good first, and this error when it reads on.
            self.fail(End::Malformed);
        } else if body.is_complete() {
            self.complete(taken == bytes.len());
        }
        taken
    }

    /// The answer is complete; `clean`: nothing came behind it.
    fn complete(&mut self, clean: bool) {
        self.exchange.end.set(End::Complete);
        if let Some(connection) = self.connection.take()
            && clean
            && self.keep
            && !self.unsent
            && let Some(site) = self.site.upgrade()
        {
            site.keep(connection);
        }
    }

    fn check<T>(&mut self, result: Result<T, Malformed>) -> Result<T, io::Error> {
        result.map_err(|Malformed| self.fail(End::Malformed))
    }

    /// Closes the connection and makes the error that the codec sees.
    fn fail(&mut self, end: End) -> io::Error {
        self.exchange.end.set(end);
        self.connection = None;
        io::Error::from(io::ErrorKind::UnexpectedEof)
    }

    /// The connection was closed (`Ok`) or broke.
    fn on_close(&mut self, read: io::Result<()>) -> io::Result<()> {
        if read.is_ok() && self.body == Some(Body::UntilClose) {
            self.complete(false);
            return Ok(());
        }
        Err(self.fail(End::Broken))
    }

    /// Looks for an answer while the request is stuck. True where there is nothing left to send
    /// for: the final head is there, or nothing will come.
    fn answered(&mut self, cx: &mut Context<'_>) -> bool {
        let mut scratch = [0; 4096];
        loop {
            let Some(connection) = &mut self.connection else { return true };
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut connection.socket).poll_read(cx, &mut buf) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.exchange.heard.set(true);
                    self.stash.extend_from_slice(buf.filled());
                    if self.take_stash().unwrap_or(true) {
                        return true;
                    }
                }
                Poll::Ready(_) => {
                    self.fail(End::Broken);
                    return true;
                }
            }
        }
    }

    /// What becomes of a write or flush that took `all` if it succeeded or does not matter any
    /// more. A failed one is no failure yet: the answer may have come before the reset.
    fn sent<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        all: T,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(part)) => return Poll::Ready(Ok(part)),
            Poll::Pending if !self.answered(cx) => return Poll::Pending,
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        self.cut = true;
        Poll::Ready(Ok(all))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.out.is_empty() {
                let len = this.out.len().min(buf.remaining());
                buf.put_slice(&this.out.split_to(len));
                return Poll::Ready(Ok(()));
            }
            let Some(connection) = &mut this.connection else {
                return Poll::Ready(match this.exchange.end() {
                    End::Complete => Ok(()),
                    _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                });
            };
            let before = buf.filled().len();
            let read = ready!(Pin::new(&mut connection.socket).poll_read(cx, buf));
            let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if read.is_err() || came.is_empty() {
                return Poll::Ready(this.on_close(read));
            }
            let taken = this.take_in(came)?;
            buf.set_filled(before + taken);
            if taken > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cut {
            return Poll::Ready(Ok(buf.len()));
        }
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        };
        this.unsent = true;
        let written = Pin::new(&mut connection.socket).poll_write(cx, buf);
        this.sent(cx, written, buf.len())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(connection) = this.connection.as_mut().filter(|_| !this.cut) else {
            return Poll::Ready(Ok(()));
        };
        let flushed = Pin::new(&mut connection.socket).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            this.unsent = false;
        }
        this.sent(cx, flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection = None;
        Poll::Ready(Ok(()))
    }
}

impl ActixStream for Io {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match &self.connection {
            Some(connection) => ActixStream::poll_read_ready(connection.socket.tcp(), cx),
            None => Poll::Ready(Ok(Ready::ALL)),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match &self.connection {
            Some(connection) => ActixStream::poll_write_ready(connection.socket.tcp(), cx),
            None => Poll::Ready(Ok(Ready::ALL)),
        }
    }
}
