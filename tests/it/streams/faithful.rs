//! T18: however a recorded stream is split and encoded, the client gets its bytes, and its usage
//! is counted.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;

use super::{all, fixture, note, one_chunk};
use crate::support::client::{Client, Response, ask, post};
use crate::support::document::Document;
use crate::support::node::Node;
use crate::support::wall::{Gate, Script, Wall};

const ENCODINGS: [&str; 5] = ["identity", "gzip", "deflate", "zstd", "br"];

/// A recorded stream and the request that it answers.
struct Recorded {
    name: &'static str,
    path: &'static str,
    more: &'static str,
    /// Whether usage comes only where it is asked for.
    optional: bool,
}

const RECORDED: [Recorded; 8] = [
    chat("text", ""),
    chat("tools", ""),
    chat("reasoning", ""),
    chat("two_choices", r#""n":2,"#),
    Recorded { name: "completions", path: "/v1/completions", ..chat("", r#""prompt":["a","b"],"#) },
    typed("image", "/v1/images/generations", ""),
    typed("speech", "/v1/audio/speech", r#""stream_format":"sse","#),
    typed("transcript", "/v1/audio/transcriptions", ""),
];

const fn chat(name: &'static str, more: &'static str) -> Recorded {
    Recorded { name, path: "/v1/chat/completions", more, optional: true }
}

const fn typed(name: &'static str, path: &'static str, more: &'static str) -> Recorded {
    Recorded { name, path, more, optional: false }
}

impl Recorded {
    fn whole(&self) -> Vec<u8> {
        fixture(&format!("{}.sse", self.name))
    }

    /// As it is without usage.
    fn hidden(&self) -> Vec<u8> {
        let kind = if self.optional { ".hidden" } else { "" };
        fixture(&format!("{}{kind}.sse", self.name))
    }

    /// Input and output tokens as the provider tells them.
    fn usage(&self) -> (u64, u64) {
        let text = String::from_utf8(self.whole()).expect("text");
        let mut usages = text.lines().filter_map(|line| {
            let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
            let count =
                |names: [&str; 2]| names.iter().find_map(|name| event["usage"][*name].as_u64());
            let input = count(["prompt_tokens", "input_tokens"]);
            Some((input?, count(["completion_tokens", "output_tokens"])?))
        });
        usages.next_back().expect("a recorded stream tells its usage")
    }

    fn request(&self, model: &str, note: &str, asks_usage: bool) -> Vec<u8> {
        if self.path == "/v1/audio/transcriptions" {
            return form(self.path, model, note);
        }
        let asks = if asks_usage { r#""stream_options":{"include_usage":true},"# } else { "" };
        let body = format!(
            r##"{{"model":"{model}","stream":true,{}{asks}"messages":[],"user":"#{note}#"}}"##,
            self.more
        );
        post(self.path, &[("accept-encoding", "gzip, br, zstd")], body.as_bytes())
    }
}

/// A request to transcribe, as a form.
fn form(path: &str, model: &str, note: &str) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in
        [("model", model), ("stream", "true"), ("prompt", &format!("#{note}#")), ("file", "RIFF")]
    {
        let file = if name == "file" { "; filename=\"a.wav\"" } else { "" };
        body.push_str(&format!(
            "--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        ));
    }
    body.push_str("--edge--\r\n");
    post(path, &[("content-type", "multipart/form-data; boundary=edge")], body.as_bytes())
}

fn encode(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        "zstd" => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(bytes, level)
        }
        "br" => brotli(bytes),
        _ => bytes.to_vec(),
    }
}

/// Brotli without compression (RFC 7932, section 9.2): a window of 16 bits, one meta-block of
/// stored bytes, an empty last one.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len() - 1).expect("a short stream");
    let header = (len << 4 | 1 << 20).to_le_bytes();
    [&header[..3], bytes, &[3]].concat()
}

fn decode(encoding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Some("gzip") => drop(MultiGzDecoder::new(bytes).read_to_end(&mut out).expect("gzip")),
        Some("deflate") => drop(ZlibDecoder::new(bytes).read_to_end(&mut out).expect("zlib")),
        Some("zstd") => {
            let mut rest = bytes;
            while !rest.is_empty() {
                let frame = ruzstd::decoding::StreamingDecoder::new(&mut rest);
                frame.expect("a frame").read_to_end(&mut out).expect("zstd");
            }
        }
        Some("br") => out.extend_from_slice(&bytes[3..bytes.len() - 1]),
        _ => out.extend_from_slice(bytes),
    }
    out
}

/// How the bytes leave the provider.
fn manner(bytes: &[u8], how: &str) -> Script {
    match how {
        "whole" => Script::new().send(one_chunk(bytes)),
        "bytewise" => Script::new().bytewise(one_chunk(bytes)),
        "byte-chunks" => {
            let chunks: Vec<u8> = bytes.iter().flat_map(|byte| one_chunk(&[*byte])).collect();
            Script::new().send(chunks)
        }
        at => Script::new().split(one_chunk(bytes), &[at.parse().expect("an offset")]),
    }
}

/// A wall that plays what the note names: a recording, with its usage or without, an encoding,
/// how it is split.
fn playing() -> Wall {
    Wall::start(|attempt| {
        let note = note(attempt);
        let recorded = RECORDED.iter().find(|it| it.name == note[0]).expect("a recording");
        let asked = attempt.header("content-type").is_some_and(|it| it.starts_with("multipart"))
            || !recorded.optional
            || attempt.json()["stream_options"]["include_usage"] == true;
        let stream = if asked { recorded.whole() } else { recorded.hidden() };
        let encoding = &*note[1];
        let head = match encoding {
            "identity" => String::new(),
            encoding => format!("content-encoding: {encoding}\r\n"),
        };
        let script = Script::new().send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{head}transfer-encoding: chunked\r\n\r\n"
        ));
        script.then(manner(&encode(encoding, &stream), &note[2])).end_chunks()
    })
}

/// One target and pool for each encoding, so that their usage is counted apart.
fn document(wall: &Wall, settings: &str) -> Document {
    ENCODINGS.iter().fold(Document::new(), |document, encoding| {
        document.target(encoding, &wall.base_url("/v1"), settings).pool(
            &format!("p-{encoding}"),
            &format!("[{encoding}]"),
            "retry: { attempts: 1 }",
        )
    })
}

/// All ways to split a stream that are tried here: more where nothing is slow about it.
fn manners(encoding: &str, len: usize) -> Vec<String> {
    let step = if encoding == "identity" { 61 } else { 127 };
    let offsets = (1..len).step_by(step).map(|at| at.to_string());
    ["whole", "bytewise", "byte-chunks"].into_iter().map(str::to_owned).chain(offsets).collect()
}

async fn replay(
    node: &Node,
    recorded: &Recorded,
    encoding: &str,
    how: &str,
    asks: bool,
) -> Response {
    let note = format!("{} {encoding} {how}", recorded.name);
    let request = recorded.request(&format!("p-{encoding}"), &note, asks);
    let response = ask(node.data, &request).await;
    assert!(response.status == 200 && response.complete, "{note}: {}", response.text());
    response
}

async fn replay_all(node: &Node, asks: bool, provider_tells: bool) -> Vec<(&'static str, usize)> {
    let mut counts = Vec::new();
    for encoding in ENCODINGS {
        let cases = RECORDED.iter().flat_map(|recorded| {
            let manners = manners(encoding, recorded.whole().len());
            manners.into_iter().map(move |how| (recorded, how))
        });
        let done = all(cases.map(async |(recorded, how)| {
            let response = replay(node, recorded, encoding, &how, asks).await;
            let what = format!("{} {encoding} {how}", recorded.name);
            // Something is taken out of a stream only where the node has put the question in.
            let takes_out = recorded.optional && provider_tells && !asks;
            let passes = encoding != "identity" && (!takes_out || encoding == "br");
            let expected = passes.then_some(encoding);
            assert_eq!(response.header("content-encoding"), expected, "{what}");
            let hides = takes_out && encoding != "br";
            let came = if recorded.optional && !provider_tells && !asks || hides {
                recorded.hidden()
            } else {
                recorded.whole()
            };
            assert!(decode(expected, &response.body) == came, "{what}: {}", response.text());
            if passes {
                assert_eq!(response.body, encode(encoding, &came), "{what}: not untouched");
            }
        }))
        .await;
        counts.push((encoding, done.len()));
    }
    counts
}

/// The usage that the node has counted for a target: input, output, and how often it guessed.
fn counted(node: &Node, target: &str) -> (u64, u64, u64) {
    let metric = |name: String| node.metric(&name) as u64;
    let tokens =
        |kind| metric(format!("flotilla_tokens_total{{target=\"{target}\",kind=\"{kind}\"}}"));
    let estimated = metric(format!("flotilla_usage_estimated_total{{target=\"{target}\"}}"));
    (tokens("input"), tokens("output"), estimated)
}

/// What the recordings tell, each as often as it was played.
fn told(encoding: &str) -> (u64, u64, u64) {
    RECORDED.iter().fold((0, 0, 0), |(input, output, _), recorded| {
        let times = manners(encoding, recorded.whole().len()).len() as u64;
        let (more_input, more_output) = recorded.usage();
        (input + times * more_input, output + times * more_output, 0)
    })
}

async fn usage_is_counted_and_bytes_are_kept(asks: bool) {
    let wall = playing();
    let node = document(&wall, "").serve();
    for (encoding, count) in replay_all(&node, asks, true).await {
        if encoding == "br" {
            let (input, output, estimated) = counted(&node, encoding);
            assert_eq!(estimated, count as u64, "brotli is not read");
            assert!(input > 0 && output > 0);
        } else {
            assert_eq!(counted(&node, encoding), told(encoding), "{encoding}");
        }
    }
    let asked = wall.attempts();
    assert!(asked.iter().all(|attempt| attempt.header("accept-encoding") == Some("identity")));
}

// T18
#[tokio::test]
async fn what_asking_for_usage_adds_is_taken_out_at_any_split_and_encoding() {
    usage_is_counted_and_bytes_are_kept(false).await;
}

// T18
#[tokio::test]
async fn a_client_that_asks_for_usage_gets_every_byte_at_any_split_and_encoding() {
    usage_is_counted_and_bytes_are_kept(true).await;
}

// T18
#[tokio::test]
async fn a_provider_that_refuses_the_question_for_usage_is_not_asked_and_its_usage_is_estimated() {
    let wall = playing();
    let node = document(&wall, "usage_in_stream: false").serve();
    let optional = RECORDED.iter().filter(|recorded| recorded.optional);
    let cases = optional.flat_map(|it| ENCODINGS.iter().map(move |encoding| (it, *encoding)));
    all(cases.map(async |(recorded, encoding)| {
        let response = replay(&node, recorded, encoding, "byte-chunks", false).await;
        let came = encode(encoding, &recorded.hidden());
        assert!(response.body == came, "{} {encoding}", recorded.name);
    }))
    .await;
    for attempt in wall.attempts() {
        assert!(!attempt.json().as_object().expect("an object").contains_key("stream_options"));
    }
    for encoding in ENCODINGS {
        assert_eq!(counted(&node, encoding).2, 5, "{encoding}");
    }
}

// T18
#[tokio::test]
async fn a_stream_passes_as_it_comes_in_every_encoding() {
    let mut first = fixture("text.sse");
    let rest = first.split_off(1300);
    for encoding in ENCODINGS {
        let gate = Gate::new();
        let wall = Wall::start({
            let (gate, first, rest) = (gate.clone(), first.clone(), rest.clone());
            move |_| {
                let (first, rest) = in_two(encoding, &first, &rest);
                let script = Script::new().send(format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {encoding}\r\ntransfer-encoding: chunked\r\n\r\n"
                ));
                script.send(one_chunk(&first)).wait(&gate).send(one_chunk(&rest)).end_chunks()
            }
        });
        let node = document(&wall, "").serve();
        let mut client = Client::connect(node.data).await;
        client.send(&RECORDED[0].request(&format!("p-{encoding}"), "", true)).await;
        let head = client.head().await;
        let early = client.chunk().await.expect("a chunk").expect("before the rest is sent");
        gate.open();
        let (late, complete) = client.body(&head).await;
        let body = [early, late].concat();
        let whole = [&first[..], &rest].concat();
        assert!(complete && decode(head.header("content-encoding"), &body) == whole, "{encoding}");
    }
}

// T18: what a provider sends behind its terminal event, a moment later, belongs to the same bytes.
#[tokio::test]
async fn done_is_passed_on_although_it_comes_after_the_terminal_event() {
    let whole = fixture("transcript.sse");
    let mut first = whole.clone();
    let done = first.split_off(whole.len() - b"data: [DONE]\n\n".len());
    // Parted by a chunk of its own that the node reads alone: the client has the first one then.
    let gate = Gate::new();
    let script = Script::sse_head().send(one_chunk(&first)).wait(&gate).send(one_chunk(&done));
    let wall = Wall::always(script.end_chunks());
    let node = Document::of(&[&wall], "").serve();
    let mut client = Client::connect(node.data).await;
    client.send(&form("/v1/audio/transcriptions", "p", "")).await;
    let head = client.head().await;
    let early = client.chunk().await.expect("a chunk").expect("the events");
    assert_eq!(early, first);
    gate.open();
    let (late, complete) = client.body(&head).await;
    assert!(complete && late == done, "{}", String::from_utf8_lossy(&late));
}

/// Both halves of a stream, encoded so that the first can be decoded without the second.
fn in_two(encoding: &str, first: &[u8], rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match encoding {
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(first).expect("memory");
            encoder.flush().expect("memory");
            let early = std::mem::take(encoder.get_mut());
            encoder.write_all(rest).expect("memory");
            (early, encoder.finish().expect("memory"))
        }
        "br" => {
            let whole = brotli(&[first, rest].concat());
            (whole[..first.len()].to_vec(), whole[first.len()..].to_vec())
        }
        // A member or a frame for each half.
        _ => (encode(encoding, first), encode(encoding, rest)),
    }
}
