//! T15 in the phases that the provider can see.

use std::time::Duration;

use super::{GOODBYES, Goodbye, SOON, all_gone, attempt, form, leave, recorded, request, sent};
use crate::support::client::Client;
use crate::support::document::Document;
use crate::support::node::Node;
use crate::support::wall::{Attempt, Gate, Script, Wall};

const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
const WORD: &str = r#"{"choices":[{"index":0,"delta":{"content":"ahoy"}}]}"#;

/// A phase in which a client leaves, by how the provider brings it about.
const PHASES: [(&str, &[&str]); 5] = [
    // No head.
    ("silent", &["chat stream", "chat", "completions stream", "embeddings", "transcription"]),
    // A head and no content.
    ("role", &["chat stream", "completions stream"]),
    // Content, then silence.
    ("word", &["chat stream", "completions stream"]),
    // Content that goes on and on.
    ("talk", &["chat stream"]),
    // A plain answer, begun and large.
    ("large", &["chat", "embeddings", "speech"]),
];

/// The head of a large answer and a first part of it.
fn large() -> Script {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n";
    Script::new().send(head).send("x".repeat(200_000))
}

fn play(attempt: &Attempt) -> Script {
    let has = |phase: &str| memchr::memmem::find(&attempt.body(), phase.as_bytes()).is_some();
    if has("#silent") {
        Script::new().stall()
    } else if has("#role") {
        Script::sse_head().event(ROLE).stall()
    } else if has("#word") {
        Script::sse_head().event(ROLE).event(WORD).stall()
    } else if has("#talk") {
        let script = Script::sse_head();
        (0..2000).fold(script, |script, _| script.event(WORD).pause(Duration::from_millis(2)))
    } else {
        large().stall()
    }
}

/// Waits until the client has what it gets in this phase.
async fn arrived(client: &mut Client, phase: &str) {
    let mark: &[u8] = match phase {
        "word" | "talk" => b"ahoy",
        "large" => &[b'x'; 1000],
        _ => return,
    };
    client.until(mark).await.expect("the answer has begun");
}

async fn leave_in(node: &Node, wall: &Wall, phase: &str, endpoint: &str, goodbye: Goodbye) {
    let note = format!("{phase} {endpoint} {goodbye:?}");
    let mut client = sent(node.data, &request(endpoint, "p", &note)).await;
    let attempt = attempt(wall, &note).await;
    arrived(&mut client, phase).await;
    assert!(attempt.closed_at().is_none(), "{note}");
    let left = leave(client, goodbye).await;
    let took = attempt.closed().await.duration_since(left);
    assert!(took < SOON, "{note}: the provider worked on for {took:?}");
}

// T15
#[tokio::test]
async fn a_client_that_leaves_stops_the_provider_in_every_phase() {
    let wall = Wall::start(play);
    let node = Document::of(&[&wall], "").serve();
    let cases = PHASES.into_iter().flat_map(|(phase, endpoints)| {
        let cases = endpoints.iter().flat_map(|it| GOODBYES.map(|goodbye| (*it, goodbye)));
        cases.map(move |(endpoint, goodbye)| (phase, endpoint, goodbye))
    });
    let cases: Vec<_> = cases.collect();
    let leaving = cases
        .iter()
        .map(|(phase, endpoint, goodbye)| leave_in(&node, &wall, phase, endpoint, *goodbye));
    futures_util::future::join_all(leaving).await;
    all_gone(&node).await;
    let count = cases.len() as f64;
    assert_eq!(recorded(&node), (count, count, count), "{}", node.metrics());
    assert!(node.metric("flotilla_tokens_total{target=\"t0\",kind=\"input\"}") >= count);
    assert!(node.metric("flotilla_tokens_total{target=\"t0\",kind=\"output\"}") > 0.0);
    assert_eq!(wall.count(), cases.len(), "nobody was asked again for a client that left");
}

// T15
#[tokio::test]
async fn a_client_that_leaves_during_the_heartbeats_stops_the_provider() {
    let wall = Wall::start(play);
    let node = Document::of(&[&wall], "heartbeat: 20ms").serve();
    for (phase, goodbye) in ["silent", "role", "word"].into_iter().zip(GOODBYES) {
        let mut client = sent(node.data, &request("chat stream", "p", phase)).await;
        let attempt = attempt(&wall, phase).await;
        client.until(b": ping").await.expect("a heartbeat");
        let left = leave(client, goodbye).await;
        assert!(attempt.closed().await.duration_since(left) < SOON, "{phase}");
    }
    all_gone(&node).await;
    assert_eq!(recorded(&node), (3.0, 3.0, 3.0));
}

// T15
#[tokio::test]
async fn a_client_that_leaves_a_large_answer_unread_stops_the_provider() {
    let begun: Vec<_> = GOODBYES.iter().map(|_| Gate::new()).collect();
    let wall = Wall::start({
        let begun = begun.clone();
        move |attempt| {
            // More than all buffers between the provider and the client hold.
            let script = large().open(&begun[attempt.number]);
            (0..64).fold(script, |script, _| script.send(vec![b'x'; 1 << 20])).stall()
        }
    });
    let node = Document::of(&[&wall], "").serve();
    for (number, goodbye) in GOODBYES.into_iter().enumerate() {
        let mut client = sent(node.data, &request("embeddings", "p", "unread")).await;
        client.head().await;
        begun[number].opened().await;
        let attempt = wall.attempt(number).await;
        let left = leave(client, goodbye).await;
        let took = attempt.closed().await.duration_since(left);
        assert!(took < SOON, "{goodbye:?}: the provider worked on for {took:?}");
    }
    all_gone(&node).await;
    assert_eq!(recorded(&node), (3.0, 3.0, 3.0));
}

// T15
#[tokio::test]
async fn a_client_that_leaves_during_the_upload_to_the_provider_stops_it() {
    let gates: Vec<_> = GOODBYES.iter().map(|_| Gate::new()).collect();
    let wall = Wall::start_early(false, {
        let gates = gates.clone();
        // Reads nothing until the client has left, and then all that is there.
        move |attempt| Script::new().wait_unread(&gates[attempt.number]).stall()
    });
    let node = Document::of(&[&wall], "").serve();
    let upload = form("/v1/audio/transcriptions", "p", "upload", &vec![b'a'; 20 << 20]);
    for (number, (goodbye, gate)) in GOODBYES.into_iter().zip(gates).enumerate() {
        let client = sent(node.data, &upload).await;
        let attempt = wall.attempt(number).await;
        let left = leave(client, goodbye).await;
        gate.open();
        let took = attempt.closed().await.duration_since(left);
        assert!(took < SOON, "{goodbye:?}: the upload went on for {took:?}");
    }
    all_gone(&node).await;
    assert_eq!(recorded(&node), (3.0, 3.0, 3.0));
}
