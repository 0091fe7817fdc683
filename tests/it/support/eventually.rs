//! Waiting for something to become true, instead of sleeping and hoping.

use std::time::{Duration, Instant};

/// Waits until `condition` holds, looking every few milliseconds. Fails the test at `deadline`.
#[track_caller]
pub(crate) fn eventually(
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < deadline, "not true within {deadline:?}, asked at {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
