//! One connection of a wall: reads requests, plays scripts.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Manner;
use super::log::{Attempt, Log};
use super::request::{Rest, take_head};
use super::script::Step;

/// A connection that came in.
pub(super) struct Connection {
    pub(super) tcp: TcpStream,
    pub(super) number: usize,
    pub(super) log: Arc<Log>,
    pub(super) manner: Manner,
    pub(super) acceptor: Option<TlsAcceptor>,
}

impl Connection {
    /// Serves requests until one side closes.
    pub(super) async fn serve(self) {
        if self.tcp.set_nodelay(true).is_err() {
            return;
        }
        let stream = match &self.acceptor {
            None => Stream::Plain(self.tcp),
            Some(acceptor) => match acceptor.accept(self.tcp).await {
                Ok(tls) => Stream::Tls(Box::new(tls)),
                Err(_) => return,
            },
        };
        let (closed, peer) = watch::channel(None);
        let mut player = Player { stream, buffer: BytesMut::new(), closed };
        loop {
            let head = loop {
                match take_head(&mut player.buffer) {
                    Some(head) => break head,
                    None if player.read().await.is_break() => return,
                    None => {}
                }
            };
            let at = Instant::now();
            let mut rest = head.rest();
            let body = OnceLock::new();
            let whole = self.manner.early
                || player
                    .read_body(&mut rest, &body, usize::MAX, Duration::ZERO)
                    .await
                    .is_continue();
            let attempt = self.log.push(|number| Attempt {
                number,
                connection: self.number,
                at,
                method: head.method,
                path: head.path,
                headers: head.headers,
                body,
                peer: peer.clone(),
            });
            if !whole {
                return;
            }
            for step in (self.manner.play)(&attempt).steps {
                if player.play(step, &mut rest, &attempt).await.is_break() {
                    return;
                }
            }
        }
    }
}

/// The two directions of a connection.
struct Player {
    stream: Stream,
    buffer: BytesMut,
    closed: watch::Sender<Option<Instant>>,
}

impl Player {
    /// Reads something; breaks where the client closed.
    async fn read(&mut self) -> ControlFlow<()> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => ControlFlow::Continue(()),
            Ok(0) | Err(_) => {
                self.closed.send_replace(Some(Instant::now()));
                ControlFlow::Break(())
            }
        }
    }

    /// Reads until the client closes.
    async fn watch(&mut self) {
        while self.read().await.is_continue() {}
    }

    async fn read_body(
        &mut self,
        rest: &mut Rest,
        into: &OnceLock<bytes::Bytes>,
        at_once: usize,
        pause: Duration,
    ) -> ControlFlow<()> {
        let mut body = BytesMut::new();
        let mut since_pause = 0;
        while !rest.take(&mut self.buffer, &mut body) {
            let before = self.buffer.len();
            self.read().await?;
            since_pause += self.buffer.len() - before;
            if since_pause >= at_once {
                since_pause = 0;
                tokio::time::sleep(pause).await;
            }
        }
        into.set(body.freeze()).expect("a body is read once");
        ControlFlow::Continue(())
    }

    async fn send(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let sent = match self.stream.write_all(bytes).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        if sent.is_err() {
            self.closed.send_replace(Some(Instant::now()));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    async fn play(&mut self, step: Step, rest: &mut Rest, attempt: &Attempt) -> ControlFlow<()> {
        match step {
            Step::Send(bytes) => self.send(&bytes).await?,
            Step::Pieces(pieces, pause) => {
                for piece in pieces {
                    self.send(&piece).await?;
                    match pause {
                        Duration::ZERO => tokio::task::yield_now().await,
                        pause => tokio::time::sleep(pause).await,
                    }
                }
            }
            Step::Open(gate) => gate.open(),
            Step::Wait(gate) => tokio::select! {
                () = gate.0.cancelled() => {}
                () = self.watch() => return ControlFlow::Break(()),
            },
            Step::WaitUnread(gate) => gate.0.cancelled().await,
            Step::PauseUnread(time) => tokio::time::sleep(time).await,
            Step::Pause(time) => tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = self.watch() => return ControlFlow::Break(()),
            },
            Step::Read(at_once, pause) => {
                self.read_body(rest, &attempt.body, at_once, pause).await?;
            }
            Step::Discard => {
                while !rest.take(&mut self.buffer, &mut BytesMut::new()) {
                    self.buffer.reserve(64 * 1024);
                    self.read().await?;
                }
            }
            Step::Reset => {
                let linger = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
                linger.expect("a socket");
                return ControlFlow::Break(());
            }
            Step::Close => {
                drop(self.stream.shutdown().await);
                return ControlFlow::Break(());
            }
            Step::Cut => return ControlFlow::Break(()),
            Step::HalfClose => {
                drop(self.stream.shutdown().await);
                self.watch().await;
                return ControlFlow::Break(());
            }
            Step::Stall => {
                self.watch().await;
                return ControlFlow::Break(());
            }
            Step::Freeze => std::future::pending().await,
        }
        ControlFlow::Continue(())
    }
}

/// Plain or TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
