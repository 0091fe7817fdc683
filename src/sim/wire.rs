//! The connection under HTTP, with the one thing that HTTP has no word for: a reset.
//!
//! A socket resets when it is closed while it lingers for no time at all. Whoever serves a request
//! never sees the socket, so each connection carries a fuse: once lit, closing is resetting.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::TcpStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Makes the end of one connection a reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Fuse(Rc<Cell<bool>>);

impl Fuse {
    /// From now on, closing the connection resets it.
    pub(super) fn light(&self) {
        self.0.set(true);
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    fuse: Fuse,
}

impl Wire {
    /// A connection as it was accepted.
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, fuse: Fuse::default() }
    }

    /// The fuse of this connection.
    pub(super) fn fuse(&self) -> Fuse {
        self.fuse.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.fuse.0.get() {
            // Where this fails the socket is gone already, and so is whoever could notice.
            drop(SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown would say a polite goodbye before the reset.
        if self.fuse.0.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
