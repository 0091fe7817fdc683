//! T15 in the phases that no provider sees: before it is connected to, and between attempts.

use std::net::TcpListener;
use std::time::Duration;

use super::{GOODBYES, SOON, all_gone, leave, recorded, request, sent};
use crate::support::blackhole::Blackhole;
use crate::support::client::Client;
use crate::support::document::Document;
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Script, Wall, answer};

// T15
#[tokio::test]
async fn a_client_that_leaves_during_its_own_body_is_gone_and_nobody_was_asked() {
    let wall = Wall::always(Script::json(200, "{}"));
    let node = Document::of(&[&wall], "").serve();
    for goodbye in GOODBYES {
        for endpoint in ["chat", "chat stream", "transcription"] {
            let whole = request(endpoint, "p", "half of it");
            let client = sent(node.data, &whole[..whole.len() - 10]).await;
            eventually(DEADLINE, || node.metric("flotilla_body_bytes") > 0.0).await;
            leave(client, goodbye).await;
            all_gone(&node).await;
            assert_eq!(node.metric("flotilla_body_bytes"), 0.0);
        }
    }
    assert_eq!(wall.connections(), 0);
    assert_eq!(recorded(&node), (9.0, 0.0, 0.0), "{}", node.metrics());
}

// T15
#[tokio::test]
async fn a_client_that_leaves_stops_the_connecting() {
    let hole = Blackhole::new();
    let document = Document::new().target("t0", &format!("http://{}/v1", hole.address()), "");
    let node = document.pool("p", "[t0]", "timeouts: { connect: 60s }").serve();
    for (goodbye, endpoint) in GOODBYES.into_iter().zip(["chat", "chat stream", "embeddings"]) {
        let client = sent(node.data, &request(endpoint, "p", "x")).await;
        eventually(DEADLINE, || hole.connecting() > 0).await;
        leave(client, goodbye).await;
        eventually(SOON, || hole.connecting() == 0).await;
    }
    all_gone(&node).await;
    assert_eq!(recorded(&node).0, 3.0);
}

// T15
#[tokio::test]
async fn a_client_that_leaves_stops_the_greeting_over_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let document = Document::new().target("t0", &format!("https://{address}/v1"), "");
    let node = document.pool("p", "[t0]", "timeouts: { connect: 60s }").serve();
    for goodbye in GOODBYES {
        let client = sent(node.data, &request("chat stream", "p", "x")).await;
        let (mut tcp, _) = listener.accept().expect("the node connects");
        leave(client, goodbye).await;
        tcp.set_read_timeout(Some(SOON)).expect("a socket option");
        let read = std::io::copy(&mut tcp, &mut std::io::sink());
        assert!(!read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    all_gone(&node).await;
    assert_eq!(recorded(&node).0, 3.0);
}

// T15
#[tokio::test]
async fn a_client_that_leaves_during_a_backoff_is_not_retried_for() {
    let busy = answer(429, &[("retry-after-ms", "1900")], "{}");
    let wall = Wall::always(Script::new().send(busy));
    let node = Document::of(&[&wall], "retry: { attempts: 2 }").serve();
    let mut clients: Vec<Client> = Vec::new();
    for endpoint in ["chat", "chat stream", "embeddings"] {
        clients.push(sent(node.data, &request(endpoint, "p", "x")).await);
    }
    eventually(DEADLINE, || {
        node.metric("flotilla_attempts_total{target=\"t0\",outcome=\"status_429\"}") == 3.0
    })
    .await;
    for (client, goodbye) in clients.into_iter().zip(GOODBYES) {
        leave(client, goodbye).await;
    }
    // The future of each request is gone, so nothing can be asked any more.
    all_gone(&node).await;
    assert_eq!(wall.count(), 3);
    assert_eq!(recorded(&node), (3.0, 0.0, 0.0));
    assert!(Duration::from_millis(1900) > SOON, "the wait is longer than the patience of all_gone");
}
