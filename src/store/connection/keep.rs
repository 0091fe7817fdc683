//! The task that keeps a connection: it makes one, learns the time on it, and makes the next when
//! that is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use redis::{AsyncConnectionConfig, Value};
use tokio::time::{sleep, timeout};

use super::super::breaker::jittered;
use super::super::endpoint::{CONNECT, Endpoint};
use super::super::fault;
use super::{Live, Shared};

/// The first wait after a connection that failed; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest: a master that is back is connected to within a second.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Until its handle is aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut wait = FIRST_WAIT;
    loop {
        let connected = timeout(CONNECT, connect(&shared)).await;
        match connected {
            Ok(Ok(live)) => {
                // What was said of the connection before is not about this one.
                let _ = shared.broken.notified().now_or_never();
                shared.live.send_replace(Some(live));
                let since = Instant::now();
                shared.broken.notified().await;
                shared.live.send_replace(None);
                // One that lived is made again at once; one that breaks at once is not hurried.
                if since.elapsed() > LONGEST_WAIT {
                    wait = FIRST_WAIT;
                }
            }
            Ok(Err(error)) => {
                let (code, _, means) = fault::read(&error);
                tracing::debug!(code, means, "redis is not connected");
            }
            Err(_) => tracing::debug!("redis does not answer"),
        }
        let random = shared.state().random.next_u64();
        sleep(jittered(wait, random)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn connect(shared: &Shared) -> redis::RedisResult<Live> {
    let mut live = match &shared.endpoint {
        Endpoint::Single(client) => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                // Every call has its own deadline.
                .set_response_timeout(None);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            Live::Single(connection)
        }
        Endpoint::Cluster(client) => {
            shared.state().lanes.spread();
            Live::Cluster(client.get_async_connection().await?)
        }
    };
    let sent = Instant::now();
    let time = live.ask(&redis::cmd("TIME")).await?;
    if let Some(now_ms) = milliseconds(&time) {
        let received = Instant::now();
        for lane in shared.state().lanes.all() {
            lane.clock.learn(now_ms, sent, received);
        }
    }
    Ok(live)
}

/// The answer of TIME: seconds and microseconds, as texts.
fn milliseconds(time: &Value) -> Option<i64> {
    let Value::Array(parts) = time else { return None };
    let [Value::BulkString(seconds), Value::BulkString(micros)] = parts.as_slice() else {
        return None;
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    Some(number(seconds)?.checked_mul(1000)? + number(micros)? / 1000)
}
