//! The composition root: builds a node from its settings, runs it, and lets it leave.

mod collector;
mod run;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_server::ServerHandle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::domain::Phase;
use crate::fleet::drain::{self, Drained};
use crate::proxy::Shared;

pub use run::{Failure, serve, simulate};
pub use start::StartError;

/// How long the data server has to close its connections once no request is left.
const CLOSING: Duration = Duration::from_secs(12);
/// The same for the admin server and the simulator, which have nothing to finish.
const CLOSING_ASIDE: Duration = Duration::from_secs(3);

/// How long the last spans may take to their collector. Together with all else that a process does
/// at its end it stays below the five seconds after which supervisors get impatient.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// How long the last usage and the last permits may take to the store.
const LAST_BATCHES: Duration = Duration::from_secs(2);

/// A node that serves. It is built inside an actix `System`, whose thread runs its servers.
#[derive(Debug)]
pub struct Node {
    /// Where clients are served.
    pub data: SocketAddr,
    /// Where operators are served.
    pub admin: SocketAddr,
    /// Where the simulator listens, if this node runs it.
    pub sim: Option<SocketAddr>,
    shared: Arc<Shared>,
    drain_limit: Duration,
    data_server: Running,
    aside: Vec<Running>,
    stop_watch: CancellationToken,
    watch: Option<JoinHandle<()>>,
}

/// A server and the task that runs it.
#[derive(Debug)]
struct Running {
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Stops the server and waits a bounded time for its end.
    async fn stop(self, graceful: bool, limit: Duration) {
        drop(actix_rt::spawn(self.handle.stop(graceful)));
        drop(timeout(limit, self.task).await);
    }
}

impl Node {
    /// Leaves without losing a request, as `fleet::drain` says; unready but serving for as long as
    /// `lame_duck`.
    ///
    /// # Cancellation
    /// A dropped future leaves the node half drained; whoever drops it ends the process.
    pub async fn drain(self, lame_duck: Duration) -> Drained {
        let config = drain::Config { lame_duck, limit: self.drain_limit };
        // Unready before anybody is told so.
        self.shared.lifecycle.advance(Phase::Draining);
        tracing::info!(
            lame_duck_ms = u64::try_from(lame_duck.as_millis()).unwrap_or(u64::MAX),
            "draining; a second signal stops at once"
        );
        let handle = self.data_server.handle.clone();
        let stop_accepting = move || drop(actix_rt::spawn(handle.stop(true)));
        let drained = drain::drain(&self.shared.lifecycle, config, stop_accepting).await;
        self.close(true).await;
        drained
    }

    /// Stops at once: requests in flight are cut off.
    pub async fn kill(self) {
        self.shared.lifecycle.advance(Phase::Ending);
        self.close(false).await;
    }

    async fn close(self, graceful: bool) {
        self.data_server.stop(graceful, CLOSING).await;
        self.stop_watch.cancel();
        for server in self.aside {
            server.stop(false, CLOSING_ASIDE).await;
        }
        if let Some(watch) = self.watch {
            drop(timeout(CLOSING_ASIDE, watch).await);
        }
        let left = self.shared.store.close(LAST_BATCHES).await;
        if left > 0 {
            tracing::warn!(left, "the store did not take the last usage of this node");
        }
        // The exporter blocks while it ends, so it does on a thread without a runtime.
        let traces = self.shared.traces.clone();
        drop(tokio::task::spawn_blocking(move || traces.shutdown(LAST_SPANS)).await);
    }
}
