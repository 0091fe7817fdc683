//! One request and its answer on one connection.
//!
//! Here a silent loss becomes an error: every byte of an answer is followed (`head`, `framing`), so
//! that
//!
//! - a close is an end only where the framing says so, else a fault;
//! - the connection goes back to its site at the last byte of the answer, if the request went out
//!   whole, nothing came behind the answer and nobody asked for a close; otherwise it is closed;
//! - what the caller sees ends at the last byte of the answer: bytes behind it reach nobody;
//! - while an upload is stuck, the answer is looked for. A final one ends the upload: what is left
//!   of it is thrown away, as it is after a write fails, and reading tells what happened.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::StatusCode;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::framing::{Body, Malformed};
use super::head::{MAX_HEAD, Sniffed, sniff};
use super::outgoing::Outgoing;
use super::site::Permit;
use super::socket::Connection;
use super::{BodyError, SendError};
use crate::domain::Headers;

/// A connection during one exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    /// `None` once the exchange ended.
    connection: Option<Connection>,
    permit: Permit,
    to_head: bool,
    reused: bool,
    begun: Instant,
    /// One byte of an answer came.
    heard: bool,
    /// The request is in the kernel's hands to its last byte.
    sent: bool,
    /// Bytes that were read and not looked at.
    input: BytesMut,
    /// Bytes of informational heads so far.
    interim: usize,
    /// What is left of the body, once the final head came.
    body: Option<Body>,
    keep: bool,
    /// Data of the body that waits for the caller.
    ready: Bytes,
    end: End,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not yet.
    Open,
    /// With the last byte of the answer.
    Complete,
    /// The connection closed or broke before that.
    Broken,
    /// What came is not HTTP.
    Malformed,
}

impl Exchange {
    /// Puts a connection to work, which was or was not used before. `to_head`: the request is a
    /// HEAD.
    pub(super) fn new(connection: Connection, reused: bool, permit: Permit, to_head: bool) -> Self {
        Self {
            connection: Some(connection),
            permit,
            to_head,
            reused,
            begun: Instant::now(),
            heard: false,
            sent: false,
            input: BytesMut::new(),
            interim: 0,
            body: None,
            keep: false,
            ready: Bytes::new(),
            end: End::Open,
        }
    }

    /// True where the provider had most likely closed the connection before the request came: it
    /// was used before, not one byte of an answer arrived, and it broke at once. Asked when the
    /// exchange has just failed.
    pub(super) fn is_stale(&self, within: Duration) -> bool {
        self.reused && !self.heard && self.end == End::Broken && self.begun.elapsed() < within
    }

    /// Ends the exchange and hands its permit on.
    pub(super) fn into_permit(self) -> Permit {
        self.permit
    }

    /// Sends the request and waits for the final head.
    pub(super) async fn transmit(
        &mut self,
        mut request: Outgoing<'_>,
    ) -> Result<(StatusCode, Headers), SendError> {
        poll_fn(|cx| self.poll_head(cx, &mut request)).await
    }

    /// The next data of the body.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if !self.ready.is_empty() {
                return Poll::Ready(Some(Ok(mem::take(&mut self.ready))));
            }
            match self.end {
                End::Open => {}
                End::Complete => return Poll::Ready(None),
                End::Broken => return Poll::Ready(Some(Err(BodyError::Truncated))),
                End::Malformed => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
            ready!(self.poll_input(cx));
            self.ready = self.take_data();
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Outgoing<'_>,
    ) -> Poll<Result<(StatusCode, Headers), SendError>> {
        if !self.sent {
            // However far it came, the answer is looked for.
            self.sent = matches!(self.poll_send(cx, request), Poll::Ready(true));
        }
        loop {
            match self.take_head() {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) if self.end == End::Broken => return Poll::Ready(Err(SendError::Closed)),
                Ok(None) => ready!(self.poll_input(cx)),
                Err(Malformed) => {
                    self.finish(End::Malformed);
                    return Poll::Ready(Err(SendError::Malformed));
                }
            }
        }
    }

    /// Writes what is left of the request. False where that failed, which is no failure of the
    /// exchange yet: the answer may have come before the reset.
    fn poll_send(&mut self, cx: &mut Context<'_>, request: &mut Outgoing<'_>) -> Poll<bool> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(false) };
        let mut socket = Pin::new(&mut connection.socket);
        while !request.is_cut() {
            let bytes = request.bytes();
            if bytes.is_empty() {
                match ready!(socket.poll_flush(cx)) {
                    Ok(()) => return Poll::Ready(true),
                    Err(_) => request.cut(),
                }
                break;
            }
            match ready!(socket.as_mut().poll_write(cx, bytes)) {
                Ok(len) if len > 0 => request.advance(len),
                _ => request.cut(),
            }
        }
        Poll::Ready(false)
    }

    /// Reads once and notes where nothing more comes.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        let mut inbox = self.permit.site().inbox();
        let read = ready!(pin!(connection.socket.read_buf(&mut *inbox)).poll(cx));
        if matches!(read, Ok(len) if len > 0) {
            self.heard = true;
            self.input.unsplit(inbox.split());
            return Poll::Ready(());
        }
        drop(inbox);
        self.on_close(&read);
        Poll::Ready(())
    }

    /// The connection was closed (`Ok`) or broke.
    fn on_close(&mut self, read: &io::Result<usize>) {
        let is_end = read.is_ok() && self.body == Some(Body::UntilClose);
        self.finish(if is_end { End::Complete } else { End::Broken });
    }

    /// Closes the connection, where it was not given back.
    fn finish(&mut self, end: End) {
        self.end = end;
        self.connection = None;
    }

    /// Looks for the final head in what came and drops informational ones.
    fn take_head(&mut self) -> Result<Option<(StatusCode, Headers)>, Malformed> {
        loop {
            match sniff(&self.input, self.to_head)? {
                Sniffed::Partial => return Ok(None),
                Sniffed::Interim(len) => {
                    self.input.advance(len);
                    self.interim += len;
                    if self.interim > MAX_HEAD {
                        return Err(Malformed);
                    }
                }
                Sniffed::Final(head) => {
                    let headers = head.headers(&self.input)?;
                    self.input.advance(head.len);
                    self.body = Some(head.body);
                    self.keep = head.keep;
                    // An answer that came in one piece gives its connection back at once.
                    self.ready = self.take_data();
                    return Ok(Some((head.status, headers)));
                }
            }
        }
    }

    /// The data in what came. Where framing lies between, it is moved together in place: a stream
    /// of tiny chunks would otherwise cost everything behind it once for each.
    fn take_data(&mut self) -> Bytes {
        let Some(body) = self.body.as_mut().filter(|_| self.end == End::Open) else {
            return Bytes::new();
        };
        let (start, mut data) = body.part(&self.input);
        let mut at = start + data;
        let mut end = at;
        while data > 0 {
            let framing;
            (framing, data) = body.part(self.input.get(at..).unwrap_or_default());
            let from = at + framing;
            at = from + data;
            if data > 0 {
                self.input.copy_within(from..at, end);
                end += data;
            }
        }
        let (malformed, complete) = (body.is_malformed(), body.is_complete());
        let clean = at == self.input.len();
        // Nothing may be left that holds on to the inbox.
        let mut taken = if clean { mem::take(&mut self.input) } else { self.input.split_to(at) };
        if malformed {
            // The caller gets what was good first.
            self.finish(End::Malformed);
        } else if complete {
            self.complete(clean);
        }
        if start == end {
            return Bytes::new();
        }
        taken.truncate(end);
        taken.advance(start);
        taken.freeze()
    }

    /// The answer is complete; `clean`: nothing came behind it.
    fn complete(&mut self, clean: bool) {
        if let Some(connection) = self.connection.take()
            && clean
            && self.keep
            && self.sent
        {
            self.permit.site().keep(connection);
        }
        self.finish(End::Complete);
    }
}
