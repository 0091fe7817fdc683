//! T20: every wait has a clock of its own, and only content counts as progress. Clocks of minutes
//! are scaled to some 100 ms here.

mod attempts;
mod heartbeat;
mod relay;

use std::time::{Duration, Instant};

use crate::support::client::{Response, ask_chat};
use crate::support::node::Node;
use crate::support::wall::{Script, chunk};

const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
const EMPTY: &str = r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#;
const WORD: &str = r#"{"choices":[{"index":0,"delta":{"content":"ahoy"}}]}"#;
const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

/// The clock under test, and how much longer than it a test may take on a busy machine.
const CLOCK: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_secs(3);

/// A whole answer.
fn good() -> Script {
    Script::sse([ROLE, WORD, FINISH])
}

/// The events of a whole answer as a client gets them.
fn good_text() -> String {
    [ROLE, WORD, FINISH, "[DONE]"].map(|data| format!("data: {data}\n\n")).concat()
}

/// The same bytes again and again, a few milliseconds apart, until the client closes.
fn trickle(script: Script, bytes: &str) -> Script {
    (0..1000).fold(script, |script, _| script.send(chunk(bytes)).pause(Duration::from_millis(10)))
}

fn data(event: &str) -> String {
    format!("data: {event}\n\n")
}

/// Asks, and says how long it took.
async fn timed(node: &Node, model: &str, stream: bool) -> (Response, Duration) {
    let start = Instant::now();
    let response = ask_chat(node.data, model, stream).await;
    (response, start.elapsed())
}

/// Fails where the clock did not run for its time.
fn on_time(took: Duration, clock: Duration, what: &str) {
    assert!(took >= clock, "{what}: too early, after {took:?}");
    assert!(took < clock + SLACK, "{what}: too late, after {took:?}");
}
