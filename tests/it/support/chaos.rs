//! A proxy that misbehaves on command, to stand between any two parties that speak TCP.
//!
//! It knows nothing of what passes through it, so the same proxy stands before a provider, before
//! a node or before a store. It runs on a thread of its own: a test may block, and may use any
//! runtime or none. All of it ends when it is dropped.
//!
//! A mode holds until the next one and is for all connections, those that exist and those to come,
//! unless it says otherwise. `cut` and `reset` are single blows that leave the mode as it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pieces on their way in one direction; a full queue holds the sender back.
const QUEUE: usize = 256;

/// How the proxy treats what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Stall,
    HalfOpen,
    Delay(Duration),
    DropAfter(u64),
}

/// What all connections watch.
#[derive(Clone, Copy, Debug)]
struct Orders {
    mode: Mode,
    /// How many times the mode was set: `DropAfter` counts from there.
    changes: u64,
    /// How many blows there were: a connection ends when it sees another number than at its start.
    blows: u64,
    /// Whether the last blow was a reset.
    reset: bool,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// A proxy that misbehaves on command.
#[derive(Debug)]
pub(crate) struct ChaosProxy {
    addr: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ChaosProxy {
    /// Listens on a free port and passes everything on to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let addr = listener.local_addr().expect("an address");
        let (orders, watched) =
            watch::channel(Orders { mode: Mode::Pass, changes: 0, blows: 0, reset: false });
        let (stop, stopped) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(serve(listener, target, watched, counted, stopped));
        });
        Self { addr, orders, counts, stop: Some(stop), thread: Some(thread) }
    }

    /// Where to connect instead of to the target.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Passes everything on, what was held back included.
    pub(crate) fn pass(&self) {
        self.set(Mode::Pass);
    }

    /// Closes new connections as soon as they are accepted; others go on.
    pub(crate) fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Holds all bytes back, both ways, until another mode; new connections are accepted.
    pub(crate) fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// Swallows all bytes and every goodbye, both ways, as if the cable were pulled: each side
    /// believes the connection open.
    pub(crate) fn half_open(&self) {
        self.set(Mode::HalfOpen);
    }

    /// Delays each piece of bytes by so much, in each direction, without slowing the flow.
    pub(crate) fn delay(&self, delay: Duration) {
        self.set(Mode::Delay(delay));
    }

    /// Closes each connection once so many more bytes came from the target through it.
    pub(crate) fn drop_after(&self, bytes: u64) {
        self.set(Mode::DropAfter(bytes));
    }

    /// Closes all connections now.
    pub(crate) fn cut(&self) {
        self.strike(false);
    }

    /// Resets all connections now.
    pub(crate) fn reset(&self) {
        self.strike(true);
    }

    /// Connections accepted since the start, refused ones included.
    pub(crate) fn connections(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that exist now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| {
            orders.mode = mode;
            orders.changes += 1;
        });
    }

    fn strike(&self, reset: bool) {
        self.orders.send_modify(|orders| {
            orders.blows += 1;
            orders.reset = reset;
        });
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy ends well");
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
    mut stopped: mpsc::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.recv() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                if orders.borrow().mode != Mode::Refuse {
                    let open = Open::new(&counts);
                    connections.spawn(connection(client, target, orders.clone(), open));
                }
            }
        }
    }
}

/// One open connection, counted.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Carries one connection until both sides are done, a side breaks, or a blow falls.
async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut orders: watch::Receiver<Orders>,
    _open: Open,
) {
    let born = orders.borrow().blows;
    let Ok(mut target) = TcpStream::connect(target).await else { return };
    for tcp in [&client, &target] {
        tcp.set_nodelay(true).expect("a socket takes nodelay");
    }
    let struck = {
        let (from_client, to_client) = client.split();
        let (from_target, to_target) = target.split();
        let up = carry(from_client, to_target, orders.clone(), false);
        let down = carry(from_target, to_client, orders.clone(), true);
        tokio::select! {
            // The orders end only together with the whole proxy.
            _ = orders.wait_for(|orders| orders.blows != born) => true,
            // Done or broken: both close either way.
            _ = async { tokio::try_join!(up, down) } => false,
        }
    };
    if struck && orders.borrow().reset {
        for tcp in [&client, &target] {
            // A socket that is gone already cannot be reset.
            drop(SockRef::from(tcp).set_linger(Some(Duration::ZERO)));
        }
    }
}

/// What one side sent, on its way to the other.
enum Piece {
    /// Bytes, not to be given on before this instant.
    Bytes(Instant, Vec<u8>),
    /// A clean end.
    Goodbye,
    /// An end that is not clean.
    Broken,
}

/// Carries one direction to its end; `answers` says that it comes from the target.
async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    orders: watch::Receiver<Orders>,
    answers: bool,
) -> io::Result<()> {
    let (send, receive) = mpsc::channel(QUEUE);
    let ((), given) =
        tokio::join!(take(from, send, orders.clone()), give(to, receive, orders, answers));
    given
}

/// Reads one side to its end.
async fn take(mut from: ReadHalf<'_>, send: mpsc::Sender<Piece>, orders: watch::Receiver<Orders>) {
    loop {
        let mut bytes = vec![0; 16 * 1024];
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = send.closed() => return,
        };
        let piece = match read {
            Ok(0) => Piece::Goodbye,
            Ok(len) => {
                bytes.truncate(len);
                let delay = match orders.borrow().mode {
                    Mode::Delay(delay) => delay,
                    _ => Duration::ZERO,
                };
                Piece::Bytes(Instant::now() + delay, bytes)
            }
            Err(_) => Piece::Broken,
        };
        let last = !matches!(piece, Piece::Bytes(..));
        if send.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// Gives to the other side what was taken, as the orders of the moment say.
async fn give(
    mut to: WriteHalf<'_>,
    mut receive: mpsc::Receiver<Piece>,
    mut orders: watch::Receiver<Orders>,
    answers: bool,
) -> io::Result<()> {
    let (mut given, mut counted_since) = (0, 0);
    while let Some(piece) = receive.recv().await {
        if let Piece::Bytes(due, _) = &piece {
            sleep_until(*due).await;
        }
        let now = orders.wait_for(|orders| orders.mode != Mode::Stall).await;
        let Orders { mode, changes, .. } = *now.map_err(io::Error::other)?;
        if counted_since != changes {
            (given, counted_since) = (0, changes);
        }
        match (piece, mode) {
            (Piece::Bytes(..), Mode::HalfOpen) => {}
            (_, Mode::HalfOpen) => std::future::pending().await,
            (Piece::Bytes(_, bytes), Mode::DropAfter(limit)) if answers => {
                let left = usize::try_from(limit.saturating_sub(given)).unwrap_or(usize::MAX);
                if bytes.len() >= left {
                    to.write_all(&bytes[..left]).await?;
                    to.shutdown().await?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                given += bytes.len() as u64;
                to.write_all(&bytes).await?;
            }
            (Piece::Bytes(_, bytes), _) => to.write_all(&bytes).await?,
            (Piece::Goodbye, _) => return to.shutdown().await,
            (Piece::Broken, _) => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    Ok(())
}
