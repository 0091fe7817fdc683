//! What the tests share: scripted providers, proxies that misbehave, clients, nodes to start.

pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod node;
pub(crate) mod wall;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Waits until `condition` holds, by looking again and again; fails the test after 20 s.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain waited until: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
