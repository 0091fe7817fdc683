//! What a wall has seen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Everything a wall has seen.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) connections: AtomicUsize,
    attempts: Mutex<Vec<Arc<Attempt>>>,
}

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// From 0, over all connections of the wall.
    pub(crate) number: usize,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// When its head was complete.
    pub(crate) at: Instant,
    /// The method.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// All headers, in order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(super) body: OnceLock<Bytes>,
    pub(super) peer: watch::Receiver<Option<Instant>>,
}

impl Log {
    pub(super) fn attempts(&self) -> Vec<Arc<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn next_connection(&self) -> usize {
        self.connections.fetch_add(1, Ordering::SeqCst)
    }

    /// Numbers an attempt and puts it on the list.
    pub(super) fn push(&self, make: impl FnOnce(usize) -> Attempt) -> Arc<Attempt> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = Arc::new(make(attempts.len()));
        attempts.push(Arc::clone(&attempt));
        attempt
    }
}

impl Attempt {
    /// The value of a header, the first one if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body without its framing; empty where it was not read (yet).
    pub(crate) fn body(&self) -> Bytes {
        self.body.get().cloned().unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body()).expect("the body is JSON")
    }

    /// When the wall saw that its client had closed the connection. The wall looks while it waits,
    /// stalls, or reads; not while it plays a script that does not read.
    pub(crate) fn closed_at(&self) -> Option<Instant> {
        *self.peer.borrow()
    }

    /// Waits until the wall sees that its client closed the connection, and says when that was.
    pub(crate) async fn closed(&self) -> Instant {
        let mut peer = self.peer.clone();
        let closed = tokio::time::timeout(DEADLINE, peer.wait_for(Option::is_some)).await;
        let closed = closed.expect("the client closes the connection in time");
        closed.ok().and_then(|at| *at).expect("the wall still plays on this connection")
    }
}
