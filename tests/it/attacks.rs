//! A hostile reviewer's attempts on the life of a request, each against a whole node: what is told
//! to the client, what is recorded, and when it ends.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::{Client, Response, ask, ask_chat, chat, post};
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::wall::{DEADLINE, Gate, Script, Wall, answer, chunk};

const CHAT: &str = "/v1/chat/completions";
const WORD: &str = r#"{"choices":[{"index":0,"delta":{"content":"word"}}]}"#;
const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const PLAIN: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;

/// A node with one pool, `m`, whose tiers hold one wall each; `more` goes into the pool.
fn node(walls: &[&Wall], more: &str, env: &[(&str, &str)]) -> Node {
    let each = |line: &dyn Fn(usize, &Wall) -> String| {
        walls.iter().enumerate().map(|(index, wall)| line(index, wall)).collect::<String>()
    };
    let providers = each(&|i, wall| {
        let base = wall.base_url("/v1");
        format!("  p{i}: {{ protocol: openai, base_url: \"{base}\", api_key: canary-key }}\n")
    });
    let targets = each(&|i, _| format!("  t{i}: {{ provider: p{i} }}\n"));
    let tiers = each(&|i, _| format!("[t{i}], "));
    let document = format!(
        "providers:\n{providers}targets:\n{targets}pools:\n  m: {{ tiers: [{tiers}], {more} }}\n"
    );
    Node::with(&document, env)
}

fn requests(node: &Node, outcome: &str, status: u16) -> f64 {
    let labels = format!(r#"endpoint="/chat/completions",pool="m",outcome="{outcome}""#);
    node.metric(&format!(r#"flotilla_requests_total{{{labels},status="{status}"}}"#))
}

fn attempts(node: &Node, outcome: &str) -> f64 {
    node.metric(&format!(r#"flotilla_attempts_total{{target="t0",outcome="{outcome}"}}"#))
}

/// Answers once the client has seen sign of life.
async fn after_ping(node: &Node, gate: &Gate) -> Response {
    let mut client = Client::connect(node.data).await;
    client.send(&post(CHAT, &[], &chat("m", true))).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let first = client.chunk().await.expect("a chunk").expect("not the end");
    assert_eq!(first, b": ping\n\n");
    gate.open();
    let (body, complete) = client.body(&head).await;
    Response { status: head.status, headers: head.headers, body, complete }
}

#[tokio::test]
async fn a_client_that_leaves_after_the_terminal_event_got_a_whole_answer() {
    let wall = Wall::always(Script::sse_head().event(WORD).event(STOP).event("[DONE]").stall());
    let node = node(&[&wall], "", &[]);
    let mut client = Client::connect(node.data).await;
    client.send(&post(CHAT, &[], &chat("m", true))).await;
    client.until(b"data: [DONE]\n\n").await.expect("the whole answer");
    client.reset();
    let ended = || node.metric("flotilla_requests_total{") >= 1.0;
    eventually(DEADLINE, ended).await;
    assert_eq!((requests(&node, "ok", 200), attempts(&node, "ok")), (1.0, 1.0));
}

#[tokio::test]
async fn a_heartbeat_does_not_change_what_is_recorded() {
    let gate = Gate::new();
    let wall =
        Wall::always(Script::new().wait(&gate).send(Script::sse_bytes(&[WORD, STOP, "[DONE]"])));
    let node = node(&[&wall], "heartbeat: 20ms", &[]);
    let response = after_ping(&node, &gate).await;
    assert!(response.complete && response.text().ends_with("data: [DONE]\n\n"));
    eventually(DEADLINE, || requests(&node, "ok", 200) == 1.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_after_a_heartbeat_was_answered_200() {
    let gate = Gate::new();
    let wall = Wall::always(Script::new().wait(&gate));
    let node = node(&[&wall], "heartbeat: 20ms", &[]);
    let mut client = Client::connect(node.data).await;
    client.send(&post(CHAT, &[], &chat("m", true))).await;
    client.until(b": ping\n\n").await.expect("a sign of life");
    drop(client);
    eventually(DEADLINE, || requests(&node, "client_gone", 200) == 1.0).await;
}

#[tokio::test]
async fn a_plain_answer_after_a_heartbeat_is_an_error_and_no_success() {
    let gate = Gate::new();
    let json = answer(200, &[("content-type", "application/json")], PLAIN);
    let wall = Wall::always(Script::new().wait(&gate).send(json));
    let node = node(&[&wall], "heartbeat: 20ms", &[]);
    let response = after_ping(&node, &gate).await;
    let text = response.text();
    assert!(!response.complete && !text.contains("choices"), "{text}");
    assert!(text.contains("data: {\"error\":") && text.contains("upstream_error"), "{text}");
    eventually(DEADLINE, || requests(&node, "upstream_error", 200) == 1.0).await;
}

#[tokio::test]
async fn a_providers_own_error_after_a_heartbeat_is_an_event() {
    let gate = Gate::new();
    let error = "{\n  \"error\": {\n    \"message\": \"too long\",\n    \"code\": \"x\"\n  }\n}\n";
    let error = answer(400, &[("content-type", "application/json")], error);
    let wall = Wall::always(Script::new().wait(&gate).send(error));
    let node = node(&[&wall], "heartbeat: 20ms", &[]);
    let response = after_ping(&node, &gate).await;
    assert!(!response.complete, "an error is no clean end");
    let text = response.text();
    let event = text.split("\n\n").find(|event| event.starts_with("data: ")).expect("an event");
    let data: Vec<_> = event.lines().map(|line| line.trim_start_matches("data: ")).collect();
    let data: serde_json::Value = serde_json::from_str(&data.join("\n")).expect("JSON");
    assert_eq!(data["error"]["message"], "too long");
    eventually(DEADLINE, || requests(&node, "provider_error", 200) == 1.0).await;
}

#[tokio::test]
async fn an_upload_at_the_drain_limit_is_told_that_the_node_goes() {
    let wall = Wall::always(Script::json(200, PLAIN));
    let mut node = node(&[&wall], "", &[("FLOTILLA_DRAIN_LIMIT", "100ms")]);
    let mut client = Client::connect(node.data).await;
    let whole = post(CHAT, &[], &chat("m", false));
    client.send(&whole[..whole.len() - 1]).await;
    eventually(DEADLINE, || node.metric("flotilla_requests_in_flight") == 1.0).await;
    node.drain();
    let response = client.response().await;
    assert_eq!((response.status, response.code()), (503, "node_draining".into()));
    assert!(response.complete);
    node.join();
}

#[tokio::test]
async fn a_request_that_took_its_whole_time_to_arrive_is_no_providers_fault() {
    let wall = Wall::always(Script::json(200, PLAIN));
    let node = node(&[&wall], "timeouts: { total: 50ms }", &[]);
    let mut client = Client::connect(node.data).await;
    let whole = post(CHAT, &[], &chat("m", false));
    client.send(&whole[..whole.len() - 1]).await;
    let start = Instant::now();
    eventually(DEADLINE, || node.metric("flotilla_requests_in_flight") == 1.0).await;
    eventually(DEADLINE, || start.elapsed() > Duration::from_millis(200)).await;
    client.send(&whole[whole.len() - 1..]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.code()), (408, "request_timeout".into()));
    assert_eq!((wall.count(), node.metric("flotilla_attempts_total{")), (0, 0.0));
}

#[tokio::test]
async fn the_total_clock_ends_an_answer_that_never_pauses() {
    const LENGTH: usize = 96 << 20;
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {LENGTH}\r\n\r\n");
    let wall = Wall::always(Script::new().send(head).send(vec![7; LENGTH]));
    let node = node(&[&wall], "timeouts: { total: 300ms }", &[]);
    let mut socket = tokio::net::TcpStream::connect(node.data).await.expect("connected");
    socket.write_all(&post(CHAT, &[], &chat("m", false))).await.expect("sent");
    let (start, mut read, mut buffer) = (Instant::now(), 0, vec![0; 32 << 10]);
    // A client that never stops reading and is never fast: there is always a piece to be had.
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        read += count;
        assert!(start.elapsed() < DEADLINE, "it goes on after {read} bytes");
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    // What the sockets on the way hold comes all the same.
    assert!(read < LENGTH / 4, "{read} bytes came, in {:?}", start.elapsed());
    eventually(DEADLINE, || requests(&node, "stream_interrupted", 200) == 1.0).await;
}

#[tokio::test]
async fn an_error_body_that_never_comes_does_not_hold_up_the_next_attempt() {
    let head = "HTTP/1.1 503 X\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n";
    let broken = Wall::always(Script::new().send(head).stall());
    let good = Wall::always(Script::json(200, PLAIN));
    let node = node(&[&broken, &good], "", &[]);
    let response = ask_chat(node.data, "m", false).await;
    assert_eq!((response.status, response.header("x-flotilla-attempts")), (200, Some("2")));
}

// T16: a body that ends with its connection has no framing that could tell.
#[tokio::test]
async fn a_plain_answer_cut_off_by_a_close_is_no_success() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let cut = Wall::always(Script::new().send(head).send(&PLAIN[..PLAIN.len() - 1]).close());
    let whole = Wall::always(Script::new().send(head).send(PLAIN).close());
    let node = node(&[&cut, &whole], "", &[]);
    let response = ask_chat(node.data, "m", false).await;
    assert_eq!((response.status, response.text()), (200, PLAIN.into()));
    assert_eq!(response.header("x-flotilla-attempts"), Some("2"));
}

// Promise 7: the terminal event is not the last byte of a compressed stream.
#[tokio::test]
async fn a_compressed_stream_passes_to_its_last_byte() {
    let events = format!("data: {WORD}\n\ndata: {STOP}\n\ndata: [DONE]\n\n");
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(events.as_bytes()).expect("into memory");
    gzip.flush().expect("into memory");
    let all_events = gzip.get_ref().len();
    let bytes = gzip.finish().expect("into memory");
    let headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
    let whole = answer(200, &headers, &bytes);
    let cut = whole.len() - bytes.len() + all_events;
    let wall = Wall::always(Script::new().split(whole, &[cut]));
    let node = node(&[&wall], "", &[]);
    let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    let response = ask(node.data, &post(CHAT, &[], body)).await;
    assert!(response.complete && response.header("content-encoding") == Some("gzip"));
    assert_eq!(response.body, bytes);
    eventually(DEADLINE, || requests(&node, "ok", 200) == 1.0).await;
}

#[tokio::test]
async fn a_retry_after_beyond_all_clocks_is_passed_on() {
    for ages in ["10000000000000000000", "1e19", "18446744073709551615"] {
        let headers = [("content-type", "application/json"), ("retry-after", ages)];
        let wall = Wall::always(Script::new().send(answer(429, &headers, "{}")));
        let node = node(&[&wall], "", &[]);
        let response = ask_chat(node.data, "m", false).await;
        assert_eq!((response.status, response.header("retry-after")), (429, Some(ages)));
        assert_eq!(wall.count(), 1, "{ages}");
    }
}

// Promise 11: what cannot be decoded for its usage passes all the same.
#[tokio::test]
async fn a_plain_answer_that_cannot_be_decoded_passes_as_it_is() {
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(200_000));
    for body in [PLAIN, &large] {
        let wall = Wall::always(Script::new().send(answer(200, &headers, body)));
        let node = node(&[&wall], "", &[]);
        let response = ask_chat(node.data, "m", false).await;
        assert_eq!((response.status, response.text().as_str()), (200, body));
        assert!(response.complete && wall.count() == 1);
    }
}

#[tokio::test]
async fn what_a_stream_says_about_our_credential_reaches_nobody() {
    let said = r#"{"error":{"message":"Incorrect API key: canary-key","code":"invalid_api_key"}}"#;
    for before in [ROLE, WORD] {
        let wall = Wall::always(Script::sse_head().event(before).event(said).end_chunks());
        let node = node(&[&wall], "", &[]);
        let response = ask_chat(node.data, "m", true).await;
        let text = response.text();
        assert!(!text.contains("canary") && text.contains("\"error\""), "{text}");
        assert_eq!(response.complete, before == ROLE, "{text}");
    }
}

#[tokio::test]
async fn an_error_event_before_any_content_is_the_providers_own_error() {
    let said = r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    let wall = Wall::always(Script::sse_head().event(ROLE).event(said).end_chunks());
    let node = node(&[&wall], "", &[]);
    let response = ask_chat(node.data, "m", true).await;
    assert_eq!((response.status, response.text().as_str()), (400, said));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!((wall.count(), requests(&node, "provider_error", 400)), (1, 1.0));
}

// T15: a client that leaves in the middle of its own upload.
#[tokio::test]
async fn a_client_that_leaves_while_it_uploads_is_gone_and_not_wrong() {
    let wall = Wall::always(Script::json(200, PLAIN));
    let node = node(&[&wall], "", &[]);
    let mut client = Client::connect(node.data).await;
    let whole = post(CHAT, &[], &chat("m", false));
    client.send(&whole[..whole.len() - 1]).await;
    eventually(DEADLINE, || node.metric("flotilla_requests_in_flight") == 1.0).await;
    drop(client);
    eventually(DEADLINE, || node.metric("flotilla_requests_in_flight") == 0.0).await;
    let gone =
        r#"flotilla_requests_total{endpoint="/chat/completions",pool="",outcome="client_gone""#;
    assert_eq!((node.metric(gone), node.metric("flotilla_body_bytes")), (1.0, 0.0));
}

#[tokio::test]
async fn a_whole_plain_answer_is_recorded_with_the_providers_figures() {
    let large = format!(r#"{{"text":"{}",{}"#, "x".repeat(300_000), &PLAIN[1..]);
    let wall = Wall::always(Script::json(200, &large));
    let node = node(&[&wall], "", &[]);
    let response = ask(node.data, &post(CHAT, &[], &chat("m", false))).await;
    assert!(response.complete && response.text() == large);
    eventually(DEADLINE, || requests(&node, "ok", 200) == 1.0).await;
    assert_eq!(node.metric(r#"flotilla_tokens_total{target="t0",kind="input"}"#), 3.0);
    assert_eq!(node.metric("flotilla_usage_estimated_total"), 0.0);
}

#[tokio::test]
async fn a_large_plain_answer_that_breaks_is_cut_and_never_tried_again() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300000\r\n\r\n";
    let wall =
        Wall::always(Script::new().send(head).send(vec![b' '; 200_000]).pause_unread().close());
    let node = node(&[&wall], "", &[]);
    let response = ask_chat(node.data, "m", false).await;
    assert!(!response.complete && response.header("content-length") == Some("300000"));
    assert_eq!(wall.count(), 1);
    eventually(DEADLINE, || requests(&node, "stream_interrupted", 200) == 1.0).await;
}

#[tokio::test]
async fn what_follows_the_terminal_event_reaches_nobody() {
    let after = chunk("data: {\"error\":{\"message\":\"canary\"}}\n\ngarbage");
    let wall = Wall::always(
        Script::sse_head().event(WORD).event(STOP).event("[DONE]").send(after).close(),
    );
    let node = node(&[&wall], "", &[]);
    let response = ask_chat(node.data, "m", true).await;
    assert!(response.complete && response.text().ends_with("data: [DONE]\n\n"));
    assert!(!response.text().contains("canary"));
    eventually(DEADLINE, || requests(&node, "ok", 200) == 1.0).await;
}
