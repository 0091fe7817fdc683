//! The wall: a scripted provider on raw TCP, which does to its client whatever a test says.
//!
//! ```ignore
//! let gate = Gate::new();
//! let wall = Wall::start({
//!     let gate = gate.clone();
//!     move |attempt| match attempt.number {
//!         0 => Script::new().reset(),                                  // the first attempt dies
//!         1 => Script::json(503, r#"{"error":{}}"#),
//!         _ => Script::sse_head().event("a").wait(&gate).event("b").end_chunks(),
//!     }
//! });
//! // ... talk to wall.base_url() ...
//! let attempt = wall.attempt(2).await;    // waits until it came
//! assert_eq!(attempt.header("authorization"), Some("Bearer x"));
//! gate.open();
//! attempt.closed().await;                 // waits until its client closed the connection
//! ```
//!
//! Each request is one *attempt*, numbered from 0 over all connections. A wall reads a request
//! whole and then plays its script; one made with `start_early` plays as soon as the head is in,
//! and reads the body only where a step says so. Unless a script closes or resets, the connection
//! then serves the next request. Every wait of a test has a deadline, after which it fails.
//!
//! A wall runs on its own thread and ends with its value.

mod connection;
mod emitter;
mod log;
mod request;
mod script;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use flotilla::domain::{Origin, Scheme};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
pub(crate) use self::emitter::{Emitter, PRICE};
use self::log::Log;
pub(crate) use self::log::{Attempt, DEADLINE};
pub(crate) use self::script::{Gate, Script, answer, chunk};
use super::eventually::eventually;

/// How a wall serves: when it begins, and what it plays for each attempt.
#[derive(Clone)]
struct Manner {
    early: bool,
    play: Arc<dyn Fn(&Attempt) -> Script + Send + Sync>,
}

/// A scripted provider that listens.
pub(crate) struct Wall {
    address: SocketAddr,
    log: Arc<Log>,
    ca: Option<String>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Wall {
    /// Listens in plain text; `play` chooses the script by looking at the attempt.
    pub(crate) fn start(play: impl Fn(&Attempt) -> Script + Send + Sync + 'static) -> Self {
        Self::start_with(false, play)
    }

    /// As `start`, over TLS or not. The certificate is for `localhost` and `127.0.0.1`, from a CA
    /// of the wall's own.
    pub(crate) fn start_with(
        tls: bool,
        play: impl Fn(&Attempt) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Manner { early: false, play: Arc::new(play) }, tls.then(tls::identity))
    }

    /// As `start_with`, but a script begins when the head of the request is in. The body is read
    /// only where a step says so.
    pub(crate) fn start_early(
        tls: bool,
        play: impl Fn(&Attempt) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Manner { early: true, play: Arc::new(play) }, tls.then(tls::identity))
    }

    /// Over TLS, with a certificate for these names that is valid now or was once.
    pub(crate) fn certified(names: &[&str], valid: bool, script: Script) -> Self {
        let play = Arc::new(move |_: &Attempt| script.clone());
        Self::listen(Manner { early: false, play }, Some(tls::identity_for(names, valid)))
    }

    /// Plays the same script for every attempt.
    pub(crate) fn always(script: Script) -> Self {
        Self::start(move |_| script.clone())
    }

    /// Plays one script for each attempt, and the last one for ever.
    pub(crate) fn sequence(scripts: impl Into<Vec<Script>>) -> Self {
        let scripts = scripts.into();
        Self::start(move |attempt| {
            let script = scripts.get(attempt.number).or(scripts.last());
            script.cloned().expect("a sequence has scripts")
        })
    }

    fn listen(manner: Manner, identity: Option<tls::Identity>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        let log = Arc::new(Log::default());
        let stop = CancellationToken::new();
        let (acceptor, ca) = identity.map(|it| (it.acceptor, it.ca)).unzip();
        let thread = std::thread::Builder::new().name("wall".into()).spawn({
            let (log, stop) = (Arc::clone(&log), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    // Dropping the set ends every connection.
                    let mut connections = JoinSet::new();
                    loop {
                        let accepted = tokio::select! {
                            () = stop.cancelled() => return,
                            accepted = listener.accept() => accepted,
                        };
                        let Ok((tcp, _)) = accepted else { continue };
                        let connection = Connection {
                            tcp,
                            number: log.next_connection(),
                            log: Arc::clone(&log),
                            manner: manner.clone(),
                            acceptor: acceptor.clone(),
                        };
                        connections.spawn(connection.serve());
                        while connections.try_join_next().is_some() {}
                    }
                });
            }
        });
        Self { address, log, ca, stop, thread: Some(thread.expect("a thread")) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as the upstream client wants it.
    pub(crate) fn origin(&self) -> Origin {
        let scheme = if self.ca.is_some() { Scheme::Https } else { Scheme::Http };
        Origin { scheme, host: self.address.ip().to_string().into(), port: self.address.port() }
    }

    /// Where it listens, as a fleet document wants it, with a prefix such as `/v1` or none.
    pub(crate) fn base_url(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.origin())
    }

    /// The CA that signed its certificate, in PEM. Only of a wall with TLS.
    pub(crate) fn ca(&self) -> &str {
        self.ca.as_deref().expect("a wall with TLS")
    }

    /// How many requests came so far.
    pub(crate) fn count(&self) -> usize {
        self.log.attempts().len()
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// All requests so far, in the order in which their heads came.
    pub(crate) fn attempts(&self) -> Vec<Arc<Attempt>> {
        self.log.attempts()
    }

    /// Waits for the request with this number, from 0, to be read as far as its script wants.
    pub(crate) async fn attempt(&self, number: usize) -> Arc<Attempt> {
        eventually(DEADLINE, || self.count() > number).await;
        self.attempts().swap_remove(number)
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
