//! T20 before the commit point: connect, first token, answer, total.

use std::time::Duration;

use super::{
    CLOCK, EMPTY, FINISH, ROLE, SLACK, WORD, data, good, good_text, on_time, timed, trickle,
};
use crate::support::blackhole::Blackhole;
use crate::support::client::{Client, chat, post};
use crate::support::document::Document;
use crate::support::wall::{Gate, Script, Wall, answer, chunk};

const FIRST_TOKEN: &str = "timeouts: { first_token: 300ms }, retry: { attempts: 2 }";

/// Providers that are busy, in their way, and never say anything.
fn never() -> Vec<(&'static str, Script)> {
    let head = Script::sse_head;
    let tool = r#"{"choices":[{"index":0,"delta":{"tool_calls":[]}}]}"#;
    vec![
        ("no head", Script::new().stall()),
        ("half a head", Script::new().send("HTTP/1.1 200 OK\r\ncontent-t").stall()),
        ("a head of interim answers", trickle_raw("HTTP/1.1 100 Continue\r\n\r\n")),
        ("a head", head().stall()),
        ("a role", head().event(ROLE).stall()),
        ("comments", trickle(head(), ": keep-alive\n\n")),
        ("empty deltas", trickle(head(), &data(EMPTY))),
        ("roles", trickle(head(), &data(ROLE))),
        ("empty lists of tools", trickle(head(), &data(tool))),
        ("empty events", trickle(head(), "data:\n\n")),
        ("an event without end", trickle(head(), "data: {\"choices\":[\n")),
        (
            "half a word",
            head().send("28\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"c").stall(),
        ),
    ]
}

fn trickle_raw(bytes: &str) -> Script {
    (0..1000).fold(Script::new(), |script, _| script.send(bytes).pause(Duration::from_millis(10)))
}

// T20
#[tokio::test]
async fn a_provider_that_says_nothing_is_left_at_the_first_token_clock() {
    let tests = never().into_iter().map(|(what, script)| async move {
        let (first, second) = (Wall::always(script), Wall::always(good()));
        let node = Document::of(&[&first, &second], FIRST_TOKEN).serve();
        let (response, took) = timed(&node, "p", true).await;
        on_time(took, CLOCK, what);
        assert!(response.status == 200 && response.complete, "{what}: {}", response.text());
        assert_eq!(response.text(), good_text(), "{what}");
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"), "{what}");
        first.attempt(0).await.closed().await;
        assert_eq!((first.count(), second.count()), (1, 1), "{what}");
    });
    futures_util::future::join_all(tests).await;
}

// T20
#[tokio::test]
async fn where_no_other_target_is_left_the_client_is_told_of_the_time_out() {
    let wall = Wall::always(trickle(Script::sse_head(), ": keep-alive\n\n"));
    let node = Document::of(&[&wall], FIRST_TOKEN).serve();
    let (response, took) = timed(&node, "p", true).await;
    on_time(took, CLOCK, "comments");
    assert_eq!((response.status, response.code()), (504, "upstream_timeout".into()));
    assert!(response.complete);
    assert_eq!(wall.count(), 1, "a target that ran out of its clock is not asked again");
}

// T20
#[tokio::test]
async fn a_slow_first_word_within_the_clock_is_waited_for() {
    let slow = Script::sse_head().event(ROLE).pause(CLOCK);
    let wall = Wall::always(slow.event(WORD).event(FINISH).done());
    let node = Document::of(&[&wall], "timeouts: { first_token: 20s, idle: 100ms }").serve();
    let (response, _) = timed(&node, "p", true).await;
    assert!(response.complete && response.text() == good_text(), "{}", response.text());
}

// T20
#[tokio::test]
async fn connecting_has_a_clock_of_its_own() {
    let (hole, wall) = (Blackhole::new(), Wall::always(good()));
    let node = Document::new()
        .target("t0", &format!("http://{}/v1", hole.address()), "")
        .target("t1", &wall.base_url("/v1"), "")
        .pool("p", "[t0], [t1]", "timeouts: { connect: 300ms }")
        .pool("alone", "[t0]", "timeouts: { connect: 300ms }, retry: { attempts: 1 }")
        .serve();
    for stream in [true, false] {
        let (response, took) = timed(&node, "p", stream).await;
        on_time(took, CLOCK, "connect");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"));
        let (response, took) = timed(&node, "alone", stream).await;
        on_time(took, CLOCK, "connect");
        assert_eq!((response.status, response.code()), (502, "upstream_error".into()));
        assert_eq!(hole.connecting(), 0, "nothing is left behind");
    }
}

// T20
#[tokio::test]
async fn a_plain_request_has_the_answer_clock_until_its_head_and_the_idle_clock_after_it() {
    let begun = answer(200, &[("content-type", "application/json")], [b' '; 99]);
    let begun = begun.slice(..begun.len() - 9);
    for (what, script, settings) in [
        ("answer", Script::new().stall(), "timeouts: { answer: 300ms }"),
        ("idle", Script::new().send(&begun).stall(), "timeouts: { idle: 300ms }"),
    ] {
        let (first, second) = (Wall::always(script), Wall::always(Script::json(200, "{}")));
        let alone = Document::of(&[&first], settings).serve();
        let (response, took) = timed(&alone, "p", false).await;
        on_time(took, CLOCK, what);
        assert_eq!((response.status, response.code()), (504, "upstream_timeout".into()), "{what}");
        first.attempt(0).await.closed().await;

        let node = Document::of(&[&first, &second], settings).serve();
        let (response, took) = timed(&node, "p", false).await;
        on_time(took, CLOCK, what);
        assert_eq!((response.status, &*response.text()), (200, "{}"), "{what}");
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"), "{what}");
    }
}

// T20
#[tokio::test]
async fn a_plain_answer_that_comes_slowly_is_not_cut_by_the_answer_clock() {
    let bytes = answer(200, &[("content-type", "application/json")], b"{\"a\":1}");
    let (head, body) = bytes.split_at(bytes.len() - 7);
    let slow = body.iter().fold(Script::new().send(head), |script, byte| {
        script.pause(Duration::from_millis(60)).send([*byte])
    });
    let wall = Wall::always(slow);
    let node = Document::of(&[&wall], "timeouts: { answer: 200ms, idle: 2s }").serve();
    let (response, took) = timed(&node, "p", false).await;
    assert!(took > Duration::from_millis(400));
    assert_eq!((response.status, &*response.text()), (200, "{\"a\":1}"));
}

// T20, and promise 9: one deadline for a request with all of its attempts.
#[tokio::test]
async fn the_total_clock_ends_a_request_in_whichever_attempt() {
    let silent = || Wall::always(Script::new().stall());
    let walls = [silent(), silent(), silent()];
    let walls: Vec<_> = walls.iter().collect();
    let settings = "timeouts: { first_token: 200ms, answer: 200ms, total: 300ms }";
    let node = Document::of(&walls, settings).serve();
    for stream in [true, false] {
        let (response, took) = timed(&node, "p", stream).await;
        on_time(took, CLOCK, "total");
        assert_eq!((response.status, response.code()), (504, "upstream_timeout".into()));
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"));
    }
    assert_eq!(walls[2].count(), 0);
}

// T20
#[tokio::test]
async fn without_a_heartbeat_no_byte_precedes_the_commit_point() {
    let (early, gate) = (Gate::new(), Gate::new());
    let wall = Wall::start({
        let (early, gate) = (early.clone(), gate.clone());
        move |_| {
            let head = Script::sse_head().send(chunk(": hold on\n\n")).event(ROLE).event(EMPTY);
            head.open(&early).wait(&gate).event(WORD).event(FINISH).done()
        }
    });
    let node = Document::of(&[&wall], "").serve();
    let mut client = Client::connect(node.data).await;
    client.send(&post("/v1/chat/completions", &[], &chat("p", true))).await;
    early.opened().await;
    let nothing = tokio::time::timeout(Duration::from_millis(300), client.head()).await;
    assert!(nothing.is_err(), "a byte before the first word: {nothing:?}");
    gate.open();
    let response = tokio::time::timeout(SLACK, client.response()).await.expect("the rest comes");
    assert!(response.complete);
    assert!(response.text().starts_with(": hold on\n\ndata: "), "{}", response.text());
}
