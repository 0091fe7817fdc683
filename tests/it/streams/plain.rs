//! T16 for plain answers: one that breaks off is an error, or visibly short, and never a success.

use super::{all, fixture, note};
use crate::support::client::{Response, ask, post};
use crate::support::document::Document;
use crate::support::node::Node;
use crate::support::wall::{Script, Wall, answer, chunk};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// The same answer in both framings.
fn framed(body: &[u8], framing: &str, step: usize) -> Vec<u8> {
    if framing == "length" {
        return answer(200, &JSON, body).to_vec();
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    body.chunks(step).for_each(|piece| bytes.extend_from_slice(&chunk(piece)));
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// A wall that breaks off this answer as the note in each request says.
fn breaking(body: Vec<u8>, step: usize) -> Wall {
    Wall::start(move |attempt| {
        let note = note(attempt);
        let bytes = framed(&body, &note[0], step);
        let at: usize = note[2].parse().expect("an offset");
        let script = Script::new().send(&bytes[..at.min(bytes.len())]);
        match &*note[1] {
            "close" => script.close(),
            _ => script.pause_unread().reset(),
        }
    })
}

async fn ask_plain(node: &Node, note: &str) -> Response {
    let body = format!(r##"{{"model":"p","input":"hi","user":"#{note}#"}}"##);
    ask(node.data, &post("/v1/embeddings", &[], body.as_bytes())).await
}

// T16
#[tokio::test]
async fn a_plain_answer_cut_at_any_byte_is_an_error_or_whole() {
    let whole = fixture("text.json");
    let wall = breaking(whole.clone(), 31);
    let node = Document::of(&[&wall], "retry: { attempts: 1 }").serve();
    let cuts = ["length", "chunks"].into_iter().flat_map(|framing| {
        let len = framed(&whole, framing, 31).len();
        let ends = [("close", 1), ("reset", 5)].into_iter();
        ends.flat_map(move |(end, step)| {
            (0..=len).step_by(step).map(move |at| (framing, end, at, at == len))
        })
    });
    let got = all(cuts.map(async |(framing, end, at, is_whole)| {
        let what = format!("{framing} {end} {at}");
        let response = ask_plain(&node, &what).await;
        assert!(response.complete, "{what}");
        // A reset may overtake what was sent before it.
        if is_whole && (end == "close" || response.status == 200) {
            assert_eq!((response.status, &response.body), (200, &whole), "{what}");
        } else {
            assert_eq!(
                (response.status, response.code()),
                (502, "upstream_error".into()),
                "{what}"
            );
        }
    }))
    .await;
    assert!(got.len() > 2 * whole.len());
}

// T16
#[tokio::test]
async fn a_large_plain_answer_that_breaks_off_after_its_commit_point_is_visibly_short() {
    let whole = vec![b'x'; 400_000];
    let wall = breaking(whole.clone(), 10_000);
    let node = Document::of(&[&wall], "retry: { attempts: 1 }").serve();
    let cuts = ["length", "chunks"].into_iter().flat_map(|framing| {
        let len = framed(&whole, framing, 10_000).len();
        let ats = [60_000, 70_000, 200_000, len - 5, len - 1, len];
        ["close", "reset"]
            .into_iter()
            .flat_map(move |end| ats.into_iter().map(move |at| (framing, end, at, at == len)))
    });
    all(cuts.map(async |(framing, end, at, is_whole)| {
        let what = format!("{framing} {end} {at}");
        let response = ask_plain(&node, &what).await;
        if response.status == 200 {
            assert!(whole.starts_with(&response.body), "{what}");
            // A reset may overtake what was sent before it.
            let lost = end == "reset" && !response.complete;
            assert_eq!(response.complete, is_whole && !lost, "{what}");
            assert!(!response.complete || response.body.len() == whole.len(), "{what}");
            assert!(at > 64 * 1024, "{what}: nothing was held back");
        } else {
            assert_eq!(response.code(), "upstream_error", "{what}");
            assert!(response.complete && (at < 70_000 || end == "reset"), "{what}");
        }
    }))
    .await;
}

// T16
#[tokio::test]
async fn a_small_plain_answer_that_breaks_off_comes_whole_from_the_next_target() {
    let whole = fixture("text.json");
    let first = breaking(whole.clone(), 31);
    let second = Wall::always(Script::json(200, &whole));
    let node = Document::of(&[&first, &second], "").serve();
    let len = framed(&whole, "chunks", 31).len();
    all((0..len).step_by(9).map(async |at| {
        let response = ask_plain(&node, &format!("chunks close {at}")).await;
        assert_eq!((response.status, &response.body), (200, &whole), "{at}");
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"), "{at}");
    }))
    .await;
}

// T18: what an answer used is looked for in its bytes, which are the client's whatever they are.
#[tokio::test]
async fn a_plain_answer_whose_compression_is_broken_passes_untouched() {
    for (encoding, body) in [("gzip", &b"this is no gzip"[..]), ("zstd", b"nor zstd"), ("br", b"x")]
    {
        let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
        let wall = Wall::always(Script::new().send(answer(200, &headers, body)));
        let node = Document::of(&[&wall], "").serve();
        let response = ask_plain(&node, "x").await;
        assert_eq!((response.status, &response.body[..]), (200, body), "{encoding}");
        assert_eq!(response.header("content-encoding"), Some(encoding));
        assert_eq!(node.metric("flotilla_usage_estimated_total{target=\"t0\"}"), 1.0);
    }
}
