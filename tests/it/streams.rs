//! Streams through a whole node: complete or honest, whatever happens to them on the way.

mod cut;
mod failed_early;
mod faithful;
mod plain;

use std::future::Future;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::support::client::{Response, ask, post};
use crate::support::node::Node;
use crate::support::wall::{Attempt, chunk};

/// Requests under way at once.
const AT_ONCE: usize = 64;

/// A recorded stream.
fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openai");
    std::fs::read(format!("{folder}/{name}")).expect("a recorded stream")
}

/// Runs all of these, many at once.
async fn all<T>(tests: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(tests).buffer_unordered(AT_ONCE).collect().await
}

/// Asks for a stream, of chat unless the model is `legacy`, with a note to the wall. `more` are
/// further members of the request.
async fn ask_stream(node: &Node, model: &str, note: &str, more: &str) -> Response {
    let body =
        format!(r##"{{"model":"{model}","stream":true,{more}"user":"#{note}#","messages":[]}}"##);
    let path = if model == "legacy" { "/v1/completions" } else { "/v1/chat/completions" };
    ask(node.data, &post(path, &[], body.as_bytes())).await
}

/// What the test wrote to the wall between two `#`, in words.
fn note(attempt: &Attempt) -> Vec<String> {
    let body = attempt.body();
    let text = String::from_utf8_lossy(&body).into_owned();
    let note = text.split('#').nth(1).expect("a note to the wall");
    note.split(' ').map(str::to_owned).collect()
}

/// A chunked body of one chunk, or of none, without its last chunk.
fn one_chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() { Vec::new() } else { chunk(bytes).to_vec() }
}

/// What a client understands of a stream: all that stands in `choices`, in order.
fn said(body: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(body.to_vec()).expect("text");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter(|data| *data != "[DONE]").map(|data| {
        let event: Value = serde_json::from_str(data).expect("every event is JSON");
        event["choices"].as_array().expect("choices").clone()
    });
    events.flatten().collect()
}

/// Takes the error event off the end of a stream that broke off; what is left, and its code.
///
/// Nothing of the answer may be cut in half, and nothing may look like its end.
fn broken_off<'a>(response: &'a Response, what: &str) -> (&'a [u8], String) {
    let text = || format!("{what}: {}", response.text());
    assert!(!response.complete, "a clean end: {}", text());
    let body = &response.body[..];
    let at = memchr::memmem::rfind(body, b"data: {\"error\"");
    let (before, error) = body.split_at(at.unwrap_or_else(|| unreachable!("{}", text())));
    let is_border = before.ends_with(b"\n\n") || before.ends_with(b"\r\n\r\n");
    assert!(before.is_empty() || is_border, "half an event: {}", text());
    for forbidden in [&b"[DONE]"[..], b"\"error\""] {
        assert!(memchr::memmem::find(before, forbidden).is_none(), "{}", text());
    }
    let error = error.strip_prefix(b"data: ").and_then(|data| data.strip_suffix(b"\n\n"));
    let error: Value = serde_json::from_slice(error.expect("one event")).expect("JSON");
    assert!(error["error"]["message"].is_string(), "{}", text());
    (before, error["error"]["code"].as_str().unwrap_or_default().to_owned())
}
