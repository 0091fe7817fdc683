//! T17: errors inside a stream that began well: before its content they are invisible, after it
//! they are told and nothing is asked again.

use super::{all, ask_stream, broken_off, fixture, note, one_chunk};
use crate::support::document::Document;
use crate::support::wall::{Script, Wall};

const ROLE: &str = r#"{"id":"first","choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
const EMPTY: &str =
    r#"{"id":"first","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#;
const CONTENT: &str = r#"{"id":"first","choices":[{"index":0,"delta":{"content":"ahoy"}}]}"#;

/// Ways in which an attempt fails.
const FAILURES: [&str; 8] = [
    "server_error",
    "rate_limit_exceeded",
    "without_a_status",
    "named_error",
    "cut",
    "end",
    "reset",
    "half_event",
];

fn fail(script: Script, how: &str) -> Script {
    match how {
        "cut" => script.close(),
        "end" => script.end_chunks(),
        "reset" => script.pause_unread().reset(),
        "half_event" => script.send("5\r\nhello\r\n").close(),
        "named_error" => script
            .send(one_chunk(b"event: error\ndata: {\"message\":\"overloaded\"}\n\n"))
            .end_chunks(),
        kind => {
            script.event(format!(r#"{{"error":{{"message":"no luck","code":"{kind}"}}}}"#)).done()
        }
    }
}

/// A first wall that sends so many harmless events of a kind, maybe content, and then fails.
fn failing() -> Wall {
    Wall::start(|attempt| {
        let note = note(attempt);
        let harmless: usize = note[2].parse().expect("a number");
        let script = (0..harmless).fold(Script::sse_head(), |script, _| match &*note[1] {
            "role" => script.event(ROLE),
            "empty" => script.event(EMPTY),
            _ => script.send(one_chunk(b": OPENROUTER PROCESSING\n\n")),
        });
        let script = if note[3] == "late" { script.event(CONTENT) } else { script };
        fail(script, &note[0])
    })
}

fn serving() -> Wall {
    Wall::always(Script::sse_head().send(one_chunk(&fixture("text.sse"))).end_chunks())
}

// T17
#[tokio::test]
async fn harmless_events_before_a_failure_never_reach_the_client() {
    let (first, second) = (failing(), serving());
    let node = Document::of(&[&first, &second], "").serve();
    let whole = fixture("text.hidden.sse");
    let cases = FAILURES.into_iter().flat_map(|how| {
        let kinds = ["role", "empty", "comment"].into_iter();
        kinds.flat_map(move |kind| (0..=5).map(move |k| format!("{how} {kind} {k} early")))
    });
    let cases: Vec<_> = cases.collect();
    all(cases.iter().map(async |case| {
        let response = ask_stream(&node, "p", case, "").await;
        assert_eq!(response.status, 200, "{case}");
        assert!(response.complete && response.body == whole, "{case}: {}", response.text());
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"), "{case}");
        assert_eq!(response.header("x-flotilla-target"), Some("t1"), "{case}");
    }))
    .await;
    assert_eq!((first.count(), second.count()), (cases.len(), cases.len()));
}

// T17
#[tokio::test]
async fn a_failure_after_content_is_told_and_not_retried() {
    let (first, second) = (failing(), serving());
    let node = Document::of(&[&first, &second], "").serve();
    let cases = FAILURES.into_iter().flat_map(|how| (0..=5).map(move |k| (how, k)));
    all(cases.map(async |(how, k)| {
        let response = ask_stream(&node, "p", &format!("{how} role {k} late"), "").await;
        assert_eq!(response.status, 200, "{how}");
        assert_eq!(response.header("x-flotilla-attempts"), Some("1"), "{how}");
        let mut expected: String = (0..k).map(|_| format!("data: {ROLE}\n\n")).collect();
        expected.push_str(&format!("data: {CONTENT}\n\n"));
        if how == "named_error" {
            expected.push_str("event: error\ndata: {\"message\":\"overloaded\"}\n\n");
            assert!(!response.complete && response.text() == expected, "{}", response.text());
            return;
        }
        let (before, code) = broken_off(&response, how);
        assert_eq!(String::from_utf8_lossy(before), expected, "{how}");
        let own = matches!(how, "cut" | "end" | "reset" | "half_event");
        assert_eq!(code, if own { "stream_interrupted" } else { how }, "{how}");
    }))
    .await;
    assert_eq!(second.count(), 0, "nothing is asked again after the commit point");
}
