//! T19: what is charged is what the provider tells, in every form of an answer; where it tells
//! nothing, an estimate stands for it and says so; and nothing is charged twice or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::support::client::{Client, ask, post};
use crate::support::document::Document;
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::wall::{Attempt, DEADLINE, Script, Wall};

const CHAT: &str = "/v1/chat/completions";
const LEGACY: &str = "/v1/completions";
const KINDS: [&str; 4] = ["input", "output", "cached", "reasoning"];

/// The recorded streams, where they are asked for, and whether usage comes only where asked for.
const RECORDED: [(&str, &str, bool); 8] = [
    ("text", CHAT, true),
    ("tools", CHAT, true),
    ("reasoning", CHAT, true),
    ("two_choices", CHAT, true),
    ("completions", LEGACY, true),
    ("image", "/v1/images/generations", false),
    ("speech", "/v1/audio/speech", false),
    ("transcript", "/v1/audio/transcriptions", false),
];

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openai");
    std::fs::read_to_string(format!("{folder}/{name}.sse")).expect("a recorded stream")
}

/// The data of each event of a recording.
fn events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

/// The last figures that a recording tells.
fn figures(text: &str) -> Value {
    let values = events(text).into_iter().filter_map(|data| serde_json::from_str(data).ok());
    let mut usage = values.map(|event: Value| event["usage"].clone()).filter(Value::is_object);
    usage.next_back().expect("a recorded stream tells its usage")
}

/// A request whose model is also the pool, and tells the wall what to play.
fn request(path: &str, model: &str, stream: bool, more: &str) -> Vec<u8> {
    if path.ends_with("transcriptions") {
        let field = |name: &str, value: &str| {
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = [field("model", model), field("stream", &stream.to_string()), {
            let file = field("file", "RIFF");
            file.replacen("\"file\"", "\"file\"; filename=\"a.wav\"", 1)
        }];
        let body = format!("{}--edge--\r\n", body.concat());
        let kind = [("content-type", "multipart/form-data; boundary=edge")];
        return post(path, &kind, body.as_bytes());
    }
    let words = "all hands on deck, the tide is turning and the harbour is near";
    let body = format!(
        r#"{{"model":"{model}","stream":{stream},{more}"prompt":"{words}","input":"{words}","messages":[{{"role":"user","content":"{words}"}}]}}"#
    );
    post(path, &[], body.as_bytes())
}

/// The model of a request, form or JSON.
fn model(attempt: &Attempt) -> String {
    let body = attempt.body();
    if let Ok(json) = serde_json::from_slice::<Value>(&body) {
        return json["model"].as_str().unwrap_or_default().to_owned();
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let value = text.split("name=\"model\"\r\n\r\n").nth(1).unwrap_or_default();
    value.split("\r\n").next().unwrap_or_default().to_owned()
}

fn asks_usage(attempt: &Attempt) -> bool {
    let json = serde_json::from_slice::<Value>(&attempt.body()).unwrap_or_default();
    json["stream_options"]["include_usage"] == true
}

/// A stream with these bytes as one chunk.
fn stream_of(text: &str) -> Script {
    Script::sse_head().send(crate::support::wall::chunk(text)).end_chunks()
}

/// A node with a target, and a pool of the same name, for each of these.
fn node(names: &[String], wall: &Wall) -> Node {
    let mut document = Document::new();
    for name in names {
        document = document.target(name, &wall.base_url("/v1"), "");
        document = document.pool(name, &format!("[{name}]"), "retry: { attempts: 1 }");
    }
    document.serve()
}

/// What was charged for a target: input, output, cached, reasoning.
fn charged(node: &Node, target: &str) -> [f64; 4] {
    KINDS.map(|kind| {
        node.metric(&format!("flotilla_tokens_total{{target=\"{target}\",kind=\"{kind}\"}}"))
    })
}

fn estimated(node: &Node, target: &str) -> f64 {
    node.metric(&format!("flotilla_usage_estimated_total{{target=\"{target}\"}}"))
}

/// Waits until an attempt at this target has ended, however it did.
async fn ended(node: &Node, target: &str) {
    let attempts = format!("flotilla_attempts_total{{target=\"{target}\",");
    eventually(DEADLINE, || node.metric(&attempts) > 0.5).await;
}

// T19
#[tokio::test]
async fn a_stream_and_a_plain_answer_are_charged_alike() {
    let wall = Wall::start(|attempt| {
        let model = model(attempt);
        let (name, mode) = model.split_once('-').expect("a recording and a mode");
        let (_, _, optional) = RECORDED.iter().find(|it| it.0 == name).expect("a recording");
        let whole = fixture(name);
        match mode {
            "plain" if name == "text" => {
                let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openai");
                Script::json(200, std::fs::read(format!("{folder}/text.json")).expect("recorded"))
            }
            "plain" => {
                let said =
                    json!({ "choices": [], "data": [], "text": "", "usage": figures(&whole) });
                Script::json(200, said.to_string())
            }
            // Usage that comes only where it is asked for has to be asked for.
            _ if *optional && !asks_usage(attempt) => {
                stream_of(&fixture(&format!("{name}.hidden")))
            }
            _ => stream_of(&whole),
        }
    });
    let names = RECORDED
        .iter()
        .flat_map(|(name, ..)| ["stream", "plain"].map(|mode| format!("{name}-{mode}")));
    let node = node(&names.collect::<Vec<_>>(), &wall);
    for (name, path, _) in RECORDED {
        let more = match name {
            "two_choices" => "\"n\":2,",
            "completions" => "\"n\":2,",
            "speech" => "\"stream_format\":\"sse\",",
            _ => "",
        };
        for stream in [true, false] {
            let target = format!("{name}-{}", if stream { "stream" } else { "plain" });
            let response = ask(node.data, &request(path, &target, stream, more)).await;
            assert_eq!(response.status, 200, "{target}: {}", response.text());
            assert!(response.complete, "{target}: {}", response.text());
            ended(&node, &target).await;
        }
        let figures = figures(&fixture(name));
        let figure = |names: [&str; 2]| names.iter().find_map(|name| figures[*name].as_f64());
        let stream = charged(&node, &format!("{name}-stream"));
        assert_eq!(stream, charged(&node, &format!("{name}-plain")), "{name}");
        assert_eq!(figure(["prompt_tokens", "input_tokens"]), Some(stream[0]), "{name}");
        assert_eq!(figure(["completion_tokens", "output_tokens"]), Some(stream[1]), "{name}");
        assert!(estimated(&node, &format!("{name}-stream")) < 0.5, "{name}");
        assert!(estimated(&node, &format!("{name}-plain")) < 0.5, "{name}");
    }
}

// T19
#[tokio::test]
async fn who_leaves_at_token_k_pays_input_and_k_tokens_and_the_estimate_says_so() {
    const TOKENS: usize = 12;
    let event = |path: &str, number: usize| match path {
        CHAT => {
            format!(r#"{{"choices":[{{"index":0,"delta":{{"content":" word{number:03}"}}}}]}}"#)
        }
        _ => format!(r#"{{"choices":[{{"index":0,"text":" word{number:03}"}}]}}"#),
    };
    let wall = Wall::start(move |attempt| {
        let model = model(attempt);
        let tokens: usize = model.rsplit('-').next().and_then(|it| it.parse().ok()).expect("k");
        let path = if model.starts_with("chat") { CHAT } else { LEGACY };
        let script = Script::sse_head();
        (1..=tokens).fold(script, |script, number| script.event(event(path, number))).stall()
    });
    let cases: Vec<_> = [("chat", CHAT), ("legacy", LEGACY)]
        .into_iter()
        .flat_map(|(kind, path)| (1..=TOKENS).map(move |k| (format!("{kind}-{k}"), path, k)))
        .collect();
    let names: Vec<_> = cases.iter().map(|(name, ..)| name.clone()).collect();
    let node = node(&names, &wall);
    for (target, path, k) in cases {
        let request = request(path, &target, true, "");
        // Twelve words and a comma; no tokenizer makes fewer tokens of them than that.
        let input = 13.0;
        let mut client = Client::connect(node.data).await;
        client.send(&request).await;
        assert_eq!(client.head().await.status, 200, "{target}");
        client.until(format!("word{k:03}").as_bytes()).await.expect("k tokens come");
        client.reset();
        ended(&node, &target).await;
        let [charged_input, output, ..] = charged(&node, &target);
        assert!(charged_input >= input, "{target}: {charged_input}");
        let k = k as f64;
        // Eight bytes each, four of which count for a token: not one is missed, and none invented.
        assert!((output - 2.0 * k).abs() < 0.5, "{target}: {output} for {k} tokens");
        assert!((estimated(&node, &target) - 1.0).abs() < 0.5, "{target}");
        let gone =
            format!("flotilla_attempts_total{{target=\"{target}\",outcome=\"client_gone\"}}");
        assert!((node.metric(&gone) - 1.0).abs() < 0.5, "{target}");
    }
}

// T19: also of what was recorded, and more for who stays longer.
#[tokio::test]
async fn who_leaves_a_recorded_stream_anywhere_is_charged_an_estimate() {
    let texts = RECORDED.iter().filter(|(_, path, _)| [CHAT, LEGACY].contains(path));
    let cases: Vec<(String, &str, String)> = texts
        .flat_map(|(name, path, _)| {
            // All but the finish reasons, which are the end.
            let text = fixture(&format!("{name}.hidden"));
            let events: Vec<String> = events(&text).into_iter().map(str::to_owned).collect();
            let is_end = |data: &&String| {
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                let choices = event["choices"].as_array().cloned().unwrap_or_default();
                choices.is_empty() || choices.iter().any(|it| it["finish_reason"].is_string())
            };
            let open = events.len() - events.iter().filter(is_end).count();
            // Before content nothing is given to a client.
            let is_content = |data: &String| {
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                let choices = event["choices"].as_array().cloned().unwrap_or_default();
                choices.iter().any(|it| {
                    let said = [&it["text"], &it["delta"]["content"], &it["delta"]["refusal"]];
                    let thought = &it["delta"]["reasoning_content"];
                    let text = |value: &Value| value.as_str().is_some_and(|it| !it.is_empty());
                    said.into_iter().chain([thought]).any(text)
                        || !it["delta"]["tool_calls"].is_null()
                })
            };
            let first = events.iter().position(is_content).expect("content") + 1;
            assert!(first < open, "{name} has more than one event of content");
            (first..=open).map(move |k| {
                let mut body: String =
                    events[..k].iter().map(|data| format!("data: {data}\n\n")).collect();
                body.push_str(": mark\n\n");
                (format!("{}-{k}", name.replace('_', "")), *path, body)
            })
        })
        .collect();
    let bodies: BTreeMap<String, String> =
        cases.iter().map(|(name, _, body)| (name.clone(), body.clone())).collect();
    let wall = Wall::start(move |attempt| {
        let body = bodies.get(&model(attempt)).expect("a case");
        Script::sse_head().send(crate::support::wall::chunk(body)).stall()
    });
    let names: Vec<_> = cases.iter().map(|(name, ..)| name.clone()).collect();
    let node = node(&names, &wall);
    let mut before: (String, f64) = Default::default();
    for (target, path, _) in &cases {
        let more = if target.starts_with("two") || path == &LEGACY { "\"n\":2," } else { "" };
        let mut client = Client::connect(node.data).await;
        client.send(&request(path, target, true, more)).await;
        client.until(b": mark").await.expect("the whole of it comes");
        client.reset();
        ended(&node, target).await;
        let [input, output, ..] = charged(&node, target);
        let name = target.split('-').next().unwrap_or_default().to_owned();
        assert!(input >= 13.0 && output >= 1.0, "{target}: {input} and {output}");
        assert!((estimated(&node, target) - 1.0).abs() < 0.5, "{target}");
        assert!(before.0 != name || output >= before.1, "{target}: less than before");
        before = (name, output);
    }
}

// T19
#[tokio::test]
async fn a_provider_that_tells_no_usage_is_charged_by_an_estimate() {
    let wall = Wall::start(|attempt| match &*model(attempt) {
        "stream" => stream_of(&fixture("text.hidden")),
        _ => Script::json(200, r#"{"choices":[{"index":0,"message":{"content":"hello there"}}]}"#),
    });
    let node = node(&["stream".to_owned(), "plain".to_owned()], &wall);
    for (target, stream) in [("stream", true), ("plain", false)] {
        assert_eq!(ask(node.data, &request(CHAT, target, stream, "")).await.status, 200);
        ended(&node, target).await;
        let [input, output, cached, reasoning] = charged(&node, target);
        assert!(input >= 13.0 && output >= 2.0, "{target}: {input} and {output}");
        assert!(cached + reasoning < 0.5, "{target}");
        assert!((estimated(&node, target) - 1.0).abs() < 0.5, "{target}");
    }
}

/// What a wall has told so far: input and output.
type Told = Arc<Mutex<[u64; 2]>>;

/// A wall that fails in turns, before and after it has told its figures, and counts what it told.
fn telling(told: &Told, offset: usize) -> Wall {
    let told = Arc::clone(told);
    Wall::start(move |attempt| {
        let turn = attempt.number + offset;
        let (input, output) = (100 + attempt.number as u64, 7 + 3 * attempt.number as u64);
        let usage = json!({ "prompt_tokens": input, "completion_tokens": output });
        let last = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let content = r#"{"choices":[{"index":0,"delta":{"content":"word"}}]}"#;
        let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let stream = attempt.json()["stream"] == true;
        let tell = || {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            *told = [told[0] + input, told[1] + output];
        };
        match turn % 5 {
            0 => Script::json(503, r#"{"error":{"message":"busy"}}"#),
            1 if stream => {
                // The figures, and then nothing that a client could have seen.
                tell();
                Script::sse_head().event(last).pause_unread().reset()
            }
            1 => Script::json(500, r#"{"error":{"message":"no"}}"#),
            2 if stream => {
                // Figures with each event, and a break after the commit point.
                tell();
                let event = content.replacen('{', &format!("{{\"usage\":{usage},"), 1);
                Script::sse_head().event(event).pause_unread().cut()
            }
            _ if stream => {
                tell();
                Script::sse([content, finish, &last])
            }
            _ => {
                tell();
                Script::json(200, format!(r#"{{"choices":[],"usage":{usage}}}"#))
            }
        }
    })
}

// T19: exactly once, through retries and fallbacks, whatever the client got.
#[tokio::test]
async fn the_sum_of_what_is_charged_is_what_the_providers_told() {
    let told: [Told; 2] = Default::default();
    let walls = [telling(&told[0], 0), telling(&told[1], 3)];
    let document = Document::of(&[&walls[0], &walls[1]], "retry: { attempts: 3 }");
    let node = document.serve();
    let mut statuses = BTreeMap::<u16, usize>::new();
    for number in 0..80 {
        let response = ask(node.data, &request(CHAT, "p", number % 2 == 0, "")).await;
        *statuses.entry(response.status).or_default() += 1;
    }
    let told = told.map(|told| *told.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(statuses.get(&200).is_some_and(|count| *count > 40), "{statuses:?}");
    assert!(walls[1].count() > 5 && told[1][0] > 0, "the fallback is used");
    let in_flight = || node.metric("flotilla_requests_in_flight");
    eventually(DEADLINE, || in_flight() < 0.5).await;
    for (target, told) in ["t0", "t1"].into_iter().zip(told) {
        let [input, output, ..] = charged(&node, target);
        assert_eq!([input, output], told.map(|tokens| tokens as f64), "{target} {statuses:?}");
        assert!(estimated(&node, target) < 0.5, "{target}");
    }
}
