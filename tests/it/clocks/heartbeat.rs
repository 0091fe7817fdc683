//! T20: comments that keep a silent stream alive, where a pool asks for them.

use std::io::Write;
use std::time::Duration;

use super::{EMPTY, FINISH, ROLE, WORD, good_text, timed, trickle};
use tokio::time::timeout;

use crate::support::client::{Client, Response, chat, post};
use crate::support::document::Document;
use crate::support::wall::{Script, Wall, answer, chunk};

const PING: &str = ": ping\n\n";
const SILENCE: Duration = Duration::from_millis(250);
const HEARTBEAT: &str = "heartbeat: 40ms, retry: { attempts: 1 }";

/// What is left of a stream without its heartbeats, and how many there were. Each must stand
/// between two events.
fn without_pings(response: &Response) -> (String, usize) {
    let text = response.text();
    for (at, _) in text.match_indices(PING) {
        let before = &text[..at];
        assert!(before.is_empty() || before.ends_with("\n\n"), "inside an event: {text}");
    }
    (text.replace(PING, ""), text.matches(PING).count())
}

// T20
#[tokio::test]
async fn a_silent_model_is_kept_alive_before_its_answer_and_between_its_events() {
    let word = chunk(format!("data: {WORD}\n\n"));
    let (half, rest) = word.split_at(30);
    let script = Script::new()
        .pause(SILENCE)
        .then(Script::sse_head().event(ROLE))
        .pause(SILENCE)
        .send(half)
        .pause(SILENCE)
        .send(rest)
        .pause(SILENCE)
        .event(FINISH)
        .done();
    let wall = Wall::always(script);
    let node = Document::of(&[&wall], HEARTBEAT).serve();
    let (response, _) = timed(&node, "p", true).await;
    assert!(response.status == 200 && response.complete, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let (events, pings) = without_pings(&response);
    assert_eq!(events, good_text());
    let text = response.text();
    assert!(pings >= 8, "{text}");
    assert!(text.starts_with(PING), "none before the answer: {text}");
    let between = format!("{WORD}\n\n{PING}");
    assert!(text.contains(&between), "none between events: {text}");
    let of_node = "flotilla_requests_total{endpoint=\"/chat/completions\",pool=\"p\",outcome=\"ok\",status=\"200\"}";
    assert_eq!(node.metric(of_node), 1.0, "{}", node.metrics());
}

// T20, scaled: a model that is silent for minutes, behind a balancer that cuts after a shorter
// silence.
#[tokio::test]
async fn a_long_silence_passes_a_balancer_that_cuts_shorter_ones() {
    let (silence, patience) = (Duration::from_millis(1500), Duration::from_millis(700));
    let wall = Wall::always(Script::new().pause(silence).then(super::good()));
    let node = Document::of(&[&wall], HEARTBEAT).serve();
    let mut client = Client::connect(node.data).await;
    client.send(&post("/v1/chat/completions", &[], &chat("p", true))).await;
    let head = timeout(patience, client.head()).await.expect("a head in time");
    assert_eq!(head.status, 200);
    let mut body = Vec::new();
    while let Some(piece) =
        timeout(patience, client.chunk()).await.expect("never silent").expect("whole")
    {
        body.extend(piece);
    }
    assert!(String::from_utf8_lossy(&body).ends_with(&good_text()));
}

// T20
#[tokio::test]
async fn a_quick_model_gets_no_heartbeat_and_keeps_its_headers() {
    let wall = Wall::always(super::good());
    let node = Document::of(&[&wall], "heartbeat: 10s").serve();
    let (response, _) = timed(&node, "p", true).await;
    assert_eq!(response.text(), good_text());
    assert_eq!(response.header("x-flotilla-target"), Some("t0"));
    let (response, _) = timed(&node, "p", false).await;
    assert_eq!(response.header("x-flotilla-target"), Some("t0"));
}

// T20
#[tokio::test]
async fn a_failover_behind_heartbeats_is_still_invisible() {
    let first = Wall::always(trickle(Script::sse_head().event(ROLE), ": wait\n\n"));
    let second = Wall::always(super::good());
    let settings = "heartbeat: 40ms, timeouts: { first_token: 300ms }";
    let node = Document::of(&[&first, &second], settings).serve();
    let (response, _) = timed(&node, "p", true).await;
    let (events, pings) = without_pings(&response);
    assert!(response.complete && events == good_text() && pings >= 2, "{}", response.text());
}

// T20
#[tokio::test]
async fn a_failure_after_the_head_was_given_is_told_inside_the_stream() {
    let late = || Script::new().pause(SILENCE);
    let error = answer(400, &[("content-type", "application/json")], r#"{"error":{"code":"x"}}"#);
    let json = answer(200, &[("content-type", "application/json")], r#"{"choices":[]}"#);
    for (what, script, expected, outcome) in [
        ("reset", late().reset(), "upstream_error", "upstream_error"),
        // The provider's own error is passed on inside the stream as it would be without one.
        ("refusal", late().send(error), "x", "provider_error"),
        ("silence", Script::new().stall(), "upstream_timeout", "upstream_timeout"),
        // A client that reads events would take what is none for an empty answer.
        ("no stream", late().send(json), "upstream_error", "upstream_error"),
    ] {
        let wall = Wall::always(script);
        let settings = format!("{HEARTBEAT}, timeouts: {{ first_token: 500ms }}");
        let node = Document::of(&[&wall], &settings).serve();
        let (response, _) = timed(&node, "p", true).await;
        assert_eq!(response.status, 200, "{what}");
        assert!(!response.complete, "{what}: a clean end: {}", response.text());
        let (events, pings) = without_pings(&response);
        let data = events.strip_prefix("data: ").and_then(|data| data.strip_suffix("\n\n"));
        let data = data.unwrap_or_else(|| unreachable!("{what}: {events:?}"));
        let error: serde_json::Value = serde_json::from_str(data).expect("one event");
        assert_eq!(error["error"]["code"], expected, "{what}");
        assert!(pings > 0, "{what}");
        let outcome = format!(
            "flotilla_requests_total{{endpoint=\"/chat/completions\",pool=\"p\",outcome=\"{outcome}\",status=\"200\"}}"
        );
        assert_eq!(node.metric(&outcome), 1.0, "{what}: {}", node.metrics());
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

// T20, T18: the head that was given promises plain events.
#[tokio::test]
async fn a_compressed_answer_behind_heartbeats_is_decoded_or_told_as_an_error() {
    let compressed = |encoding: &str| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {encoding}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let body = chunk(gzip(&good_text()));
        Script::new().pause(SILENCE).send(head).send(body).end_chunks()
    };
    let walls = [Wall::always(compressed("gzip")), Wall::always(compressed("br"))];
    let node = Document::new()
        .target("gzip", &walls[0].base_url("/v1"), "usage_in_stream: false")
        .target("br", &walls[1].base_url("/v1"), "usage_in_stream: false")
        .pool("gzip", "[gzip]", HEARTBEAT)
        .pool("br", "[br]", HEARTBEAT)
        .serve();
    let (response, _) = timed(&node, "gzip", true).await;
    assert!(response.complete, "{}", response.text());
    assert_eq!(without_pings(&response).0, good_text());
    let (response, _) = timed(&node, "br", true).await;
    assert!(!response.complete, "{}", response.text());
    let (events, _) = without_pings(&response);
    assert!(events.starts_with("data: {\"error\":") && events.ends_with("\n\n"), "{events}");
}

// T20
#[tokio::test]
async fn heartbeats_go_on_while_a_provider_sends_what_is_no_content() {
    let held = Script::sse_head().event(ROLE).event(EMPTY).pause(SILENCE);
    let wall = Wall::always(held.event(WORD).event(FINISH).done());
    let node = Document::of(&[&wall], HEARTBEAT).serve();
    let (response, _) = timed(&node, "p", true).await;
    let text = response.text();
    assert!(response.complete && text.starts_with(PING), "{text}");
    let held = [ROLE, EMPTY, WORD, FINISH, "[DONE]"].map(|data| format!("data: {data}\n\n"));
    assert_eq!(without_pings(&response).0, held.concat());
}
