//! Requests one after another: what a client sends before its turn waits here.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::ClientIo;
use super::gate::Gate;

/// How much of next requests a client may send before their turn. Whoever sends more gets the
/// answer at hand and no other: what is beyond is thrown away, because a client that leaves is
/// noticed only where everything before its end is read.
const AHEAD: usize = 128 << 10;

/// What actix refuses in whatever state its decoder of chunks is.
const NO_CHUNK: &[u8] = b"\0\r\0";

impl ClientIo {
    /// Reads what belongs to the request whose turn it is.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gate.is_shut() {
            if self.conn.ended() < self.handed_on {
                return self.poll_ahead(cx, buf);
            }
            if self.flooded {
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            self.gate = Gate::new();
        }
        let passed = if self.ahead.is_empty() {
            let before = buf.filled().len();
            ready!(self.poll_bytes(cx, buf))?;
            let came = buf.filled().get(before..).unwrap_or_default();
            let passed = self.gate.pass(came);
            self.ahead.extend_from_slice(came.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
            passed
        } else {
            let room = self.ahead.len().min(buf.remaining());
            let passed = self.gate.pass(self.ahead.get(..room).unwrap_or_default());
            buf.put_slice(&self.ahead.split_to(passed));
            passed
        };
        self.conn.set_ahead(!self.ahead.is_empty());
        if self.gate.is_shut() {
            self.handed_on += 1;
        }
        if self.gate.is_broken() {
            // actix shall refuse it, whatever it would have made of it.
            self.gate = Gate::Open;
            self.ahead = BytesMut::from(NO_CHUNK);
            if passed == 0 {
                return self.poll_request(cx, buf);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The request at hand is whole and not yet answered: takes in what comes before its turn, and
    /// sees the client leave. Never ready but for an end.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            let read = self.poll_bytes(cx, buf)?;
            let came = buf.filled().get(before..).unwrap_or_default();
            if read.is_ready() && came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.flooded || self.ahead.len() + came.len() > AHEAD {
                self.flooded = true;
                self.ahead = BytesMut::new();
            } else {
                self.ahead.extend_from_slice(came);
            }
            buf.set_filled(before);
            if read.is_pending() {
                if self.flooded || !self.ahead.is_empty() {
                    self.conn.set_ahead(true);
                    self.conn.await_turn(cx);
                }
                return Poll::Pending;
            }
        }
    }
}
