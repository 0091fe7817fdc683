//! T20 after the commit point: idle and total, whatever else keeps coming.

use std::time::Duration;

use super::{CLOCK, EMPTY, FINISH, ROLE, SLACK, WORD, data, on_time, timed, trickle};
use crate::support::client::Response;
use crate::support::document::Document;
use crate::support::wall::{Gate, Script, Wall, chunk};

/// The code of the error event at the end of a stream that broke off.
fn code(response: &Response) -> String {
    assert!(response.status == 200 && !response.complete, "{}", response.text());
    let text = response.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let error = serde_json::from_str::<serde_json::Value>(last.trim_start_matches("data: "));
    let error = error.unwrap_or_else(|_| unreachable!("no error at the end: {text}"));
    assert!(text.ends_with("\n\n"), "{text}");
    error["error"]["code"].as_str().unwrap_or_default().to_owned()
}

// T20
#[tokio::test]
async fn only_content_moves_the_idle_clock() {
    let begun = || Script::sse_head().event(ROLE).event(WORD);
    let cases = [
        ("silence", begun().stall()),
        ("comments", trickle(begun(), ": keep-alive\n\n")),
        ("empty deltas", trickle(begun(), &data(EMPTY))),
        ("half an event", trickle(begun(), "data: {\n")),
    ];
    let tests = cases.into_iter().map(|(what, script)| async move {
        let wall = Wall::always(script);
        let node = Document::of(&[&wall], "timeouts: { idle: 300ms }").serve();
        let (response, took) = timed(&node, "p", true).await;
        on_time(took, CLOCK, what);
        assert_eq!(code(&response), "stream_interrupted", "{what}");
        assert_eq!(response.text().matches("ahoy").count(), 1, "{what}");
        wall.attempt(0).await.closed().await;
    });
    futures_util::future::join_all(tests).await;
}

// T20
#[tokio::test]
async fn a_stream_that_goes_on_slowly_outlives_the_idle_clock() {
    let script = (0..6)
        .fold(Script::sse_head(), |script, _| script.event(WORD).pause(Duration::from_millis(100)));
    let wall = Wall::always(script.event(FINISH).done());
    let node = Document::of(&[&wall], "timeouts: { idle: 400ms, first_token: 300ms }").serve();
    let (response, took) = timed(&node, "p", true).await;
    assert!(response.complete && took > Duration::from_millis(500), "{}", response.text());
    assert_eq!(response.text().matches("ahoy").count(), 6);
}

// T20
#[tokio::test]
async fn the_total_clock_ends_a_stream_that_never_ends() {
    let wall = Wall::always(trickle(Script::sse_head(), &data(WORD)));
    let node = Document::of(&[&wall], "timeouts: { total: 300ms }").serve();
    let (response, took) = timed(&node, "p", true).await;
    on_time(took, CLOCK, "total");
    assert_eq!(code(&response), "stream_interrupted");
    wall.attempt(0).await.closed().await;
}

/// Sends so much of this, as fast as it is taken, that it lasts longer than any clock here.
fn flood(script: Script, bytes: &str) -> Script {
    let mebibyte = bytes.repeat((1 << 20) / bytes.len());
    let chunk = chunk(mebibyte);
    (0..256).fold(script, |script, _| script.send_shared(&chunk))
}

// T20
#[tokio::test]
async fn a_flood_does_not_hide_the_clocks() {
    for (what, bytes, settings) in [
        ("comments", ": keep-alive\n\n".to_owned(), "timeouts: { idle: 300ms }"),
        ("empty deltas", data(EMPTY), "timeouts: { idle: 300ms }"),
        ("content", data(WORD), "timeouts: { total: 300ms }"),
    ] {
        let all_sent = Gate::new();
        let script = flood(Script::sse_head().event(WORD), &bytes).open(&all_sent).stall();
        let wall = Wall::always(script);
        let node = Document::of(&[&wall], settings).serve();
        let (response, took) = timed(&node, "p", true).await;
        assert!(took < CLOCK + SLACK, "{what}: after {took:?}");
        assert_eq!(code(&response), "stream_interrupted", "{what}");
        assert!(!all_sent.is_open(), "{what}: the clock waited for the flood to end");
    }
}
