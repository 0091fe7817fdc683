//! T16: a stream that ends where it must not is never presented as success.

use std::sync::Arc;
use std::time::Duration;

use super::{all, ask_stream, broken_off, fixture, note, one_chunk, said};
use crate::support::client::Response;
use crate::support::document::Document;
use crate::support::wall::{Attempt, Script, Wall};

/// How a provider ends a body: as if it were whole, without its last chunk, with a reset.
const ENDS: [&str; 3] = ["end", "close", "reset"];
const DONE: &[u8] = b"data: [DONE]";

/// The answer that breaks off after `bytes`.
fn cut(bytes: &[u8], end: &str) -> Script {
    let script = Script::sse_head().send(one_chunk(bytes));
    match end {
        "end" => script.end_chunks().close(),
        "close" => script.close(),
        // What was sent shall arrive before the reset throws it away.
        _ => script.pause_unread().reset(),
    }
}

/// A wall that cuts this stream as the note in each request says: an end and an offset.
fn cutting(stream: Vec<u8>) -> Wall {
    Wall::start(move |attempt| {
        let note = note(attempt);
        let offset: usize = note[1].parse().expect("an offset");
        cut(&stream[..offset], &note[0])
    })
}

/// What a client got of a stream that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    All,
    HonestPart,
    Refusal,
}

/// Fails where the client was told anything but the truth.
fn judge(response: &Response, whole: &[u8], what: &str) -> Got {
    if response.status != 200 {
        assert_eq!((response.status, response.code()), (502, "upstream_error".into()), "{what}");
        assert!(response.complete, "{what}");
        return Got::Refusal;
    }
    if response.complete {
        assert!(response.body.ends_with(b"\n"), "{what}: {}", response.text());
        let events = response.body.trim_ascii_end().strip_suffix(DONE);
        let events = events.unwrap_or_else(|| unreachable!("{what}: {}", response.text()));
        // The line ends that were cut off the last event are ours.
        assert!(whole.starts_with(events.trim_ascii_end()), "{what}: {}", response.text());
        assert_eq!(said(&response.body), said(whole), "{what}");
        return Got::All;
    }
    let (part, code) = broken_off(response, what);
    assert!(whole.starts_with(part) && !part.is_empty(), "{what}: {}", response.text());
    assert_eq!(code, "stream_interrupted", "{what}");
    Got::HonestPart
}

/// Cuts a recording at every `step`th byte and around the end of every event, in all three ways.
async fn cut_everywhere(name: &str, model: &str, more: &str, step: usize) {
    let (sent, whole) = (fixture(&format!("{name}.sse")), fixture(&format!("{name}.hidden.sse")));
    let len = sent.len();
    let lines: Vec<_> = memchr::memchr_iter(b'\n', &sent).collect();
    let is_near = move |at: usize| lines.iter().any(|line| line.abs_diff(at) <= 1);
    let ats: Vec<_> = (0..=len).filter(|at| at % step == 0 || is_near(*at) || *at == len).collect();
    let wall = cutting(sent);
    let document = Document::new().target("t", &wall.base_url("/v1"), "");
    let node = document.pool(model, "[t]", "retry: { attempts: 1 }").serve();
    let cuts = ENDS.into_iter().flat_map(|end| ats.iter().map(move |at| (end, *at)));
    let got = all(cuts.map(async |(end, at)| {
        let what = format!("{name} {end} {at}");
        let response = ask_stream(&node, model, &format!("{end} {at}"), more).await;
        let got = judge(&response, &whole, &what);
        // A reset may overtake what was sent before it.
        let all_came = at == len && end != "reset";
        assert!(!all_came || got == Got::All, "{what}: the client got {got:?}");
        got
    }))
    .await;
    for outcome in [Got::All, Got::HonestPart, Got::Refusal] {
        assert!(got.contains(&outcome), "{name}: no cut gave {outcome:?}");
    }
}

// T16
#[tokio::test]
async fn a_stream_cut_at_any_byte_is_whole_or_honest() {
    cut_everywhere("completions", "legacy", r#""prompt":["a","b"],"#, 1).await;
}

// T16
#[tokio::test]
async fn a_stream_of_chat_cut_at_many_bytes_is_whole_or_honest() {
    cut_everywhere("text", "chat", "", 11).await;
    cut_everywhere("tools", "chat", "", 17).await;
    cut_everywhere("reasoning", "chat", "", 17).await;
    cut_everywhere("two_choices", "chat", r#""n":2,"#, 17).await;
}

// T16
#[tokio::test]
async fn a_stream_cut_before_its_content_comes_whole_from_the_next_target() {
    let (sent, whole) = (fixture("text.sse"), fixture("text.hidden.sse"));
    // The first event is the role, the second the first content.
    let borders: Vec<_> = memchr::memmem::find_iter(&sent, b"\n\n").map(|at| at + 2).collect();
    let committed = borders[1];
    let first = cutting(sent.clone());
    let second = Wall::always(Script::sse_head().send(one_chunk(&sent)).end_chunks());
    let node = Document::of(&[&first, &second], "").serve();
    // Every byte with the first way to end, every third one with the others.
    let cuts = ENDS.into_iter().flat_map(|end| {
        let step = if end == ENDS[0] { 1 } else { 3 };
        (0..committed).step_by(step).chain(committed..committed + 3).map(move |at| (end, at))
    });
    all(cuts.map(async |(end, at)| {
        let response = ask_stream(&node, "p", &format!("{end} {at}"), "").await;
        let what = format!("{end} {at}");
        assert_eq!(response.status, 200, "{what}");
        let attempts = response.header("x-flotilla-attempts").map(str::to_owned);
        let overtaken = end == "reset" && attempts.as_deref() == Some("2");
        if at < committed || overtaken {
            assert!(response.complete && response.body == whole, "{what}: {}", response.text());
            assert_eq!(attempts.as_deref(), Some("2"), "{what}");
        } else {
            assert_eq!(judge(&response, &whole, &what), Got::HonestPart, "{what}");
            assert_eq!(attempts.as_deref(), Some("1"), "{what}");
        }
    }))
    .await;
}

// T16
#[tokio::test]
async fn a_stream_that_stalls_or_turns_to_nonsense_ends_with_an_error() {
    let sent = fixture("text.sse");
    let content = memchr::memmem::find_iter(&sent, b"\n\n").nth(2).expect("events") + 2;
    let wall = Wall::start({
        let sent = sent.clone();
        move |attempt| {
            let note = note(attempt);
            let part = if note[1] == "early" { &sent[..0] } else { &sent[..content] };
            let script = Script::sse_head().send(one_chunk(part));
            let nonsense = |data: &str| script.clone().event(data).done();
            match &*note[0] {
                "stall" => script.clone().stall(),
                // Half an event, and then nothing.
                "half" => script.clone().send(one_chunk(&sent[content..content + 40])).stall(),
                "text" => nonsense("this is not JSON"),
                "half-json" => nonsense(r#"{"choices":[{"delta":{"content":"x"}"#),
                "html" => nonsense("<html>"),
                "number" => nonsense("7"),
                "array" => nonsense("[]"),
                _ => nonsense("\"text\""),
            }
        }
    });
    let settings = "retry: { attempts: 1 }, timeouts: { first_token: 200ms, idle: 200ms }";
    let node = Document::of(&[&wall], settings).serve();
    let whole = fixture("text.hidden.sse");
    for kind in ["stall", "half", "text", "half-json", "html", "number", "array", "string"] {
        let late = ask_stream(&node, "p", &format!("{kind} late"), "").await;
        assert_eq!(judge(&late, &whole, kind), Got::HonestPart, "{kind}");
        let early = ask_stream(&node, "p", &format!("{kind} early"), "").await;
        let silent = matches!(kind, "stall" | "half");
        let expected = if silent { (504, "upstream_timeout") } else { (502, "upstream_error") };
        assert_eq!((early.status, &*early.code()), expected, "{kind}");
    }
    // After the others the connection is as good as before.
    let stalled = |it: &Arc<Attempt>| matches!(&*note(it)[0], "stall" | "half");
    for attempt in wall.attempts().into_iter().filter(stalled) {
        let took = attempt.closed().await.duration_since(attempt.at);
        assert!(took < Duration::from_secs(2), "the connection was kept for {took:?}");
    }
}
