//! Leaving without losing a request.
//!
//! Unready first, while everything is still served and every answer asks its client to close the
//! connection: a balancer needs that long to look elsewhere (the lame duck). Then nothing new is
//! accepted and requests in flight may end, for minutes if they must. What is still left at the
//! limit is told so in its own protocol, and given a moment to hear it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::{Lifecycle, Phase};

/// How often the number of requests in flight is looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// How long the last requests have to pass their error on.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The times of a drain.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Unready but serving.
    pub lame_duck: Duration,
    /// The longest wait for requests in flight after that.
    pub limit: Duration,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still in flight at the limit and were told so.
    pub cut: usize,
    /// Requests that were left even so.
    pub left: usize,
}

/// Drains the node. `stop_accepting` is called once the lame duck is over, and must not wait.
pub async fn drain(
    lifecycle: &Lifecycle,
    config: Config,
    stop_accepting: impl FnOnce(),
) -> Drained {
    lifecycle.advance(Phase::Draining);
    sleep(config.lame_duck).await;
    stop_accepting();
    let cut = settle_down(lifecycle, config.limit).await;
    lifecycle.advance(Phase::Ending);
    let left = if cut == 0 { 0 } else { settle_down(lifecycle, LAST_WORDS).await };
    Drained { cut, left }
}

/// Waits until nothing is in flight, at most for `limit`; answers what is left.
async fn settle_down(lifecycle: &Lifecycle, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    while lifecycle.in_flight() > 0 && Instant::now() < deadline {
        sleep(GLANCE).await;
    }
    lifecycle.in_flight()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;

    const CONFIG: Config =
        Config { lame_duck: Duration::from_secs(10), limit: Duration::from_secs(600) };

    #[tokio::test(start_paused = true)]
    async fn an_idle_node_is_gone_after_its_lame_duck() {
        let (life, start, stopped) = (Lifecycle::new(), Instant::now(), Cell::new(None));
        let drained = drain(&life, CONFIG, || stopped.set(Some(start.elapsed()))).await;
        assert_eq!(drained, Drained { cut: 0, left: 0 });
        assert!(stopped.get().expect("it stopped accepting") >= CONFIG.lame_duck);
        assert!(start.elapsed() < Duration::from_secs(11));
        assert_eq!(life.phase(), Phase::Ending);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_ends_in_time_is_waited_for() {
        let (life, start) = (Arc::new(Lifecycle::new()), Instant::now());
        let guard = life.enter();
        let request = async {
            sleep(Duration::from_secs(100)).await;
            assert_eq!(life.phase(), Phase::Draining);
            drop(guard);
        };
        let (drained, ()) = tokio::join!(drain(&life, CONFIG, || ()), request);
        assert_eq!(drained, Drained { cut: 0, left: 0 });
        assert!(start.elapsed() < Duration::from_secs(101));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_limit_is_told_and_not_waited_for() {
        let (life, start) = (Arc::new(Lifecycle::new()), Instant::now());
        let (polite, _stuck) = (life.enter(), life.enter());
        let told = async {
            life.ending().await;
            drop(polite);
        };
        let (drained, ()) = tokio::join!(drain(&life, CONFIG, || ()), told);
        assert_eq!(drained, Drained { cut: 2, left: 1 });
        assert!(start.elapsed() < Duration::from_secs(613));
    }
}
