//! The task that puts a changed fleet document into force: whole or not at all.
//!
//! Requests hold the snapshot they began with, so a swap changes nothing for those in flight.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::{DocumentFault, Seen, Warning, Watch};
use crate::snapshot::Snapshot;

/// What happened to the configuration, for logs and metrics.
#[derive(Debug)]
pub enum Report {
    /// A new configuration is in force.
    Changed {
        /// What is in force now.
        snapshot: Arc<Snapshot>,
        /// What must be seen.
        warnings: Vec<Warning>,
    },
    /// The document cannot be served; the configuration in force stays.
    Invalid(Vec<DocumentFault>),
}

/// Looks at the document every `period` until `stop` is cancelled, and swaps `snapshot` when it
/// has changed. The owner spawns it and holds `stop`.
///
/// # Cancellation
/// May be dropped at any time; a read that is under way ends by itself on the blocking pool.
pub async fn watch(
    snapshot: &ArcSwap<Snapshot>,
    mut watch: Watch,
    period: Duration,
    stop: CancellationToken,
    mut report: impl FnMut(Report),
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        // A file system that hangs holds up this look only: nothing else waits for it, and no
        // second look is begun.
        let mut next = watch.clone();
        let look = tokio::task::spawn_blocking(move || {
            let seen = next.look();
            (next, seen)
        });
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look => looked,
        };
        let seen = match looked {
            Ok((next, seen)) => {
                watch = next;
                seen
            }
            // A look that panicked has been reported by the panic itself; the next one may not.
            Err(error) if error.is_panic() => Seen::Unchanged,
            // The blocking pool refuses work only when the runtime is going away.
            Err(_) => return,
        };
        match seen {
            Seen::Unchanged => {}
            Seen::Invalid(faults) => report(Report::Invalid(faults)),
            Seen::Changed(loaded) => {
                let new = Arc::new(loaded.snapshot);
                snapshot.store(Arc::clone(&new));
                report(Report::Changed { snapshot: new, warnings: loaded.warnings });
            }
        }
    }
}
