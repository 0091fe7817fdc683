//! What a node holds is in its metrics while it holds it, and no longer.

use crate::support::client::{Client, chat, post};
use crate::support::document::Document;
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

const CONTENT: &str = r#"{"choices":[{"index":0,"delta":{"content":"word"}}]}"#;
const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

// T26, the gauges that a soak is judged by.
#[tokio::test]
async fn what_a_node_holds_is_counted_while_it_holds_it() {
    let gate = Gate::new();
    let wall = Wall::always(Script::sse_head().event(CONTENT).wait(&gate).event(FINISH).done());
    let node = Document::of(&[&wall], "").serve();
    let level = |name: &str| node.metric(&format!("flotilla_{name}"));
    // Client connections, requests, request bodies; provider addresses, requests, idle connections.
    let levels = || {
        [
            level("connections "),
            level("requests_in_flight "),
            level("upstream_origins{"),
            level("upstream_requests_in_flight{"),
            level("upstream_connections_idle{"),
        ]
    };
    eventually(DEADLINE, || levels() == [0.0; 5]).await;

    let request = post("/v1/chat/completions", &[], &chat("p", true));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(node.data).await;
        client.send(&request).await;
        client.until(b"word").await.expect("the stream begins");
        clients.push(client);
    }
    // Both workers may have some of them.
    let origins = level("upstream_origins{");
    assert!((1.0..=2.0).contains(&origins));
    assert_eq!(levels(), [3.0, 3.0, origins, 3.0, 0.0]);
    // Nothing is sent again behind the commit point, so no body is kept for it.
    assert!(level("body_bytes ") < 0.5);

    // One leaves in the middle, and its connection to the provider with it; the others end well.
    clients.swap_remove(0).reset();
    eventually(DEADLINE, || level("upstream_requests_in_flight{") == 2.0).await;
    gate.open();
    for client in &mut clients {
        client.until(b"[DONE]").await.expect("the stream ends");
    }
    eventually(DEADLINE, || {
        let [connections, requests, _, upstream, idle] = levels();
        [connections, requests, upstream, idle] == [2.0, 0.0, 0.0, 2.0]
    })
    .await;
    drop(clients);
    drop(wall);
    eventually(DEADLINE, || levels() == [0.0; 5]).await;
}
