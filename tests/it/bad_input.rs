//! Whatever a client sends, it gets a clear error in its own protocol, with a stable code.

use serde_json::json;

use crate::support::client::{Client, ask, ask_chat, chat, get, post};
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::wall::DEADLINE;

const CHAT: &str = "/v1/chat/completions";

async fn refusal(node: &Node, body: &[u8]) -> (u16, String) {
    let response = ask(node.data, &post(CHAT, &[], body)).await;
    assert!(response.complete, "the error itself is whole");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.header("x-flotilla-request-id").is_some_and(|id| id.len() == 32));
    let error = &response.json()["error"];
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    assert_eq!(error["param"], json!(null));
    (response.status, response.code())
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_the_codes_of_the_interface() {
    let node = Node::first_run();
    let deep =
        [&br#"{"model":"sim","messages":[],"x":"#[..], &[b'['; 200_000], &[b']'; 200_000], b"}"]
            .concat();
    let long_model = format!(r#"{{"model":"{}"}}"#, "m".repeat(10_000));
    let cases: Vec<(&[u8], u16, &str)> = vec![
        (b"", 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"null", 400, "invalid_request"),
        (br#"{"messages":[]}"#, 400, "invalid_request"),
        (br#"{"model":7}"#, 400, "invalid_request"),
        (br#"{"model":""}"#, 400, "invalid_request"),
        (br#"{"model":"sim","stream":"yes"}"#, 400, "invalid_request"),
        (br#"{"model":"sim"} x"#, 400, "invalid_request"),
        (b"{\"model\":\"sim\",\"user\":\"\xff\"}", 400, "invalid_request"),
        (long_model.as_bytes(), 400, "invalid_request"),
        (br#"{"model":"sim","model":"sim-503"}"#, 400, "duplicate_field"),
        (br#"{"model":"sim","mod\u0065l":"sim-503"}"#, 400, "duplicate_field"),
        (br#"{"model":"no-such-model"}"#, 404, "model_not_found"),
    ];
    for (body, status, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(refusal(&node, body).await, (status, code.to_owned()), "{shown}");
    }
    // Nesting alone is no error of ours: it is passed on, and no stack overflows on the way.
    assert_eq!(ask(node.data, &post(CHAT, &[], &deep)).await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_named() {
    let node = Node::first_run();
    for path in ["/v1/files", "/v1/batches", "/v1/responses", "/nothing", "/v1/chat/completions/x"]
    {
        let response = ask(node.data, &post(path, &[], b"{}")).await;
        assert_eq!(
            (response.status, response.code()),
            (404, "endpoint_not_served".into()),
            "{path}"
        );
    }
    let response = ask(node.data, &get(CHAT, &[])).await;
    assert_eq!((response.status, response.code()), (405, "invalid_request".into()));
    assert_eq!(response.header("allow"), Some("POST, OPTIONS"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let node = Node::with("", &[("FLOTILLA_BODY_LIMIT", "1KiB")]);
    let mut client = Client::connect(node.data).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000\r\n\r\n");
    client.send(head.as_bytes()).await;
    let response = client.response().await;
    assert_eq!((response.status, response.code()), (413, "body_too_large".into()));
    assert!(response.text().contains("1024"), "the limit is named: {}", response.text());
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let node = Node::with("", &[("FLOTILLA_BODY_STALL", "100ms")]);
    let mut client = Client::connect(node.data).await;
    let whole = post(CHAT, &[], &chat("sim", false));
    client.send(&whole[..whole.len() - 5]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.code()), (408, "request_timeout".into()));
}

#[tokio::test]
async fn bodies_in_flight_are_bounded_over_the_node() {
    let node = Node::with("", &[("FLOTILLA_BODY_BUDGET", "4KiB"), ("FLOTILLA_BODY_LIMIT", "4KiB")]);
    let large = [&chat("sim", false)[..], &[b' '; 3000]].concat();
    let whole = post(CHAT, &[], &large);
    let mut first = Client::connect(node.data).await;
    first.send(&whole[..whole.len() - 1]).await;
    let full = || node.metric("flotilla_body_bytes") >= 3000.0;
    eventually(DEADLINE, full).await;
    let refused = ask(node.data, &whole).await;
    assert_eq!((refused.status, refused.code()), (429, "node_busy".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    first.send(&whole[whole.len() - 1..]).await;
    assert_eq!(first.response().await.status, 200);
    assert_eq!(ask_chat(node.data, "sim", false).await.status, 200);
}
