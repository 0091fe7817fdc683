//! The simulated providers over real sockets: wire shapes, and each fault doing what it says.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_server::ServerHandle;
use flotilla::sim::{self, Config, FAULTS};
use serde_json::{Value, json};

/// Longer than anything that is expected to happen.
const LONG: Duration = Duration::from_secs(20);

/// Long enough to call a connection silent that answers at once whenever it answers.
const QUIET: Duration = Duration::from_millis(400);

/// A simulator of its own, ended on drop.
struct Sim {
    addr: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Sim {
    fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (send, receive) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let server = sim::serve(listener, config, 1).expect("the simulator starts");
                send.send(server.handle()).expect("the test waits for it");
                server.await.expect("the simulator ends well");
            });
        });
        let handle = receive.recv().expect("the simulator starts");
        Self { addr, handle, thread: Some(thread) }
    }

    fn plain(&self, model: &str) -> Heard {
        self.chat(&json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }))
    }

    fn stream(&self, model: &str) -> Heard {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        self.chat(&json!({ "model": model, "messages": messages, "stream": true }))
    }

    fn chat(&self, body: &Value) -> Heard {
        self.post("/v1/chat/completions", "", body)
    }

    fn post(&self, path: &str, headers: &str, body: &Value) -> Heard {
        self.send(
            "POST",
            path,
            &format!("content-type: application/json\r\n{headers}"),
            &body.to_string(),
        )
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Heard {
        let mut tcp = TcpStream::connect(self.addr).expect("the simulator listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\
             content-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        tcp.write_all(request.as_bytes()).expect("the simulator reads");
        Heard::read(&mut tcp)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // The command is on its way as soon as the future exists.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the simulator ends well");
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    Silent,
}

/// Everything that came back on a connection.
#[derive(Debug)]
struct Heard {
    head: String,
    body: String,
    /// Whether the body is all that its framing promised.
    whole: bool,
    end: End,
}

impl Heard {
    fn read(tcp: &mut TcpStream) -> Self {
        tcp.set_read_timeout(Some(QUIET)).expect("a timeout");
        let (mut raw, mut piece) = (Vec::new(), [0; 4096]);
        let end = loop {
            match tcp.read(&mut piece) {
                Ok(0) => break End::Closed,
                Ok(len) => raw.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
                Err(_) => break End::Silent,
            }
        };
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or((&raw, ""));
        let head = head.to_lowercase();
        let (body, whole) = match head.split_once("content-length: ") {
            Some((_, rest)) => {
                let len = rest.lines().next().map(str::parse);
                (body.to_owned(), len == Some(Ok(body.len())))
            }
            None => dechunked(body),
        };
        Self { head, body, whole, end }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    fn data(&self) -> Vec<&str> {
        self.body
            .split_terminator("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect()
    }

    /// The events of a stream that are JSON.
    fn events(&self) -> Vec<Value> {
        self.data().into_iter().filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    fn done(&self) -> bool {
        self.data().last() == Some(&"[DONE]")
    }

    fn text(&self) -> String {
        let deltas = self.events();
        deltas.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
    }

    fn reason(&self) -> Option<String> {
        let events = self.events();
        events
            .iter()
            .find_map(|event| Some(event["choices"][0]["finish_reason"].as_str()?.to_owned()))
    }
}

/// The content of a chunked body, and whether its last chunk came.
fn dechunked(mut raw: &str) -> (String, bool) {
    let mut content = String::new();
    while let Some((size, rest)) = raw.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        if size == 0 {
            return (content, true);
        }
        let Some(chunk) = rest.get(..size) else { break };
        content.push_str(chunk);
        raw = rest.get(size + 2..).unwrap_or("");
    }
    (content, false)
}

const ANSWER: &str = "This answer was made up by a simulated provider, word after word, for tests.";

#[test]
fn a_plain_answer_has_the_shape_of_openai() {
    let heard = Sim::start(Config::default()).plain("any \"model\"");
    let answer = heard.json();
    assert_eq!(heard.header("content-type"), Some("application/json"));
    assert!(heard.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "any \"model\"");
    let choice = &answer["choices"][0];
    let expected =
        json!({ "role": "assistant", "content": ANSWER, "refusal": null, "annotations": [] });
    assert_eq!(choice["message"], expected);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 16);
}

#[test]
fn a_stream_has_the_shape_of_openai() {
    let heard = Sim::start(Config::default()).stream("m");
    let events = heard.events();
    assert!(heard.whole && heard.done());
    assert_eq!(heard.text(), ANSWER);
    assert_eq!(events.len(), 18);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[17]["choices"][0]["delta"], json!({}));
    assert_eq!(events[17]["choices"][0]["finish_reason"], "stop");
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["id"], events[0]["id"]);
        assert!(event.get("usage").is_none(), "nobody asked for usage");
    }
}

#[test]
fn usage_comes_with_a_stream_only_as_asked() {
    let body = json!({
        "model": "m", "messages": ["hi"], "stream": true, "n": 2,
        "stream_options": { "include_usage": true },
    });
    let heard = Sim::start(Config::default()).chat(&body);
    let events = heard.events();
    let (last, others) = events.split_last().expect("events");
    assert!(heard.done());
    assert!(others.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 32);
    for index in [0, 1] {
        let mut reasons = others.iter().filter(|event| event["choices"][0]["index"] == index);
        assert_eq!(
            reasons.next_back().map(|event| &event["choices"][0]["finish_reason"]),
            Some(&json!("stop"))
        );
    }
}

#[test]
fn a_lower_bound_of_the_request_ends_the_answer_by_length() {
    let body = json!({ "model": "m", "messages": ["hi"], "max_completion_tokens": 3 });
    let answer = Sim::start(Config::default()).chat(&body).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "This answer was");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_tool_is_called_when_the_user_speaks_of_it() {
    let sim = Sim::start(Config::default());
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let tools =
        json!([{ "type": "function", "function": { "name": "f", "parameters": parameters } }]);
    let mut body = json!({
        "model": "m", "stream": true, "tools": tools,
        "messages": [{ "role": "user", "content": "use the tool" }],
    });
    let heard = sim.chat(&body);
    let calls: Vec<_> = heard
        .events()
        .into_iter()
        .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0/function").cloned())
        .collect();
    let arguments: String = calls.iter().filter_map(|call| call["arguments"].as_str()).collect();
    assert_eq!(calls[0]["name"], "f");
    assert!(calls.len() > 2, "arguments come in pieces");
    assert_eq!(arguments, r#"{"city":"simulated"}"#);
    assert_eq!(heard.reason().as_deref(), Some("tool_calls"));

    // The tool's result is answered with words, or a client would call it for ever.
    body["messages"] = json!([{ "role": "tool", "tool_call_id": "x", "content": "the tool's" }]);
    assert_eq!(sim.chat(&body).text(), ANSWER);
}

#[test]
fn a_schema_is_answered_with_json_that_fits() {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema } });
    let body = json!({ "model": "m", "messages": ["hi"], "response_format": format });
    let answer = Sim::start(Config::default()).chat(&body).json();
    assert_eq!(answer["choices"][0]["message"]["content"], r#"{"n":1}"#);
}

/// What is expected of a fault: to a plain request, and to a stream.
type Expected = (&'static str, fn(&Heard) -> bool, fn(&Heard) -> bool);

fn begun(heard: &Heard) -> bool {
    let text = heard.text();
    heard.status() == 200
        && !text.is_empty()
        && ANSWER.starts_with(&text)
        && text.len() < ANSWER.len()
}

fn finished(heard: &Heard) -> bool {
    heard.whole && heard.text() == ANSWER && heard.reason().as_deref() == Some("stop")
}

fn normal(heard: &Heard) -> bool {
    heard.whole && heard.json()["choices"][0]["message"]["content"] == ANSWER
}

fn refused(heard: &Heard, status: u16, code: &str) -> bool {
    heard.status() == status && heard.json()["error"]["code"] == code
}

fn limited(heard: &Heard) -> bool {
    refused(heard, 429, "rate_limit_exceeded")
        && heard.header("retry-after") == Some("1")
        && heard.header("x-ratelimit-remaining-requests") == Some("0")
}

fn overloaded(heard: &Heard) -> bool {
    refused(heard, 503, "overloaded") && heard.header("retry-after-ms") == Some("1000")
}

fn reset(heard: &Heard) -> bool {
    heard.end == End::Reset && heard.head.is_empty()
}

fn silent(heard: &Heard) -> bool {
    heard.end == End::Silent && heard.head.is_empty()
}

const EXPECTED: &[Expected] = &[
    ("sim-429", limited, limited),
    ("sim-500", |h| refused(h, 500, "server_error"), |h| refused(h, 500, "server_error")),
    ("sim-503", overloaded, overloaded),
    ("sim-401", |h| refused(h, 401, "invalid_api_key"), |h| refused(h, 401, "invalid_api_key")),
    (
        "sim-context-length",
        |h| refused(h, 400, "context_length_exceeded"),
        |h| refused(h, 400, "context_length_exceeded"),
    ),
    ("sim-reset", reset, reset),
    ("sim-silent", silent, silent),
    ("sim-slow-first-token", silent, |h| {
        h.end == End::Silent && h.status() == 200 && h.events().len() == 1 && h.text().is_empty()
    }),
    (
        "sim-cut",
        |h| h.end == End::Closed && h.status() == 200 && !h.whole && !h.body.is_empty(),
        |h| begun(h) && h.end == End::Closed && !h.whole,
    ),
    (
        "sim-stall",
        |h| h.end == End::Silent && h.status() == 200 && !h.whole && !h.body.is_empty(),
        |h| begun(h) && h.end == End::Silent && !h.whole,
    ),
    (
        "sim-malformed",
        |h| h.whole && h.status() == 200 && serde_json::from_str::<Value>(&h.body).is_err(),
        |h| finished(h) && h.done() && h.events().len() + 2 == h.data().len(),
    ),
    ("sim-no-done", normal, |h| finished(h) && !h.done()),
    ("sim-cut-clean", normal, |h| begun(h) && h.whole && h.reason().is_none() && !h.done()),
    (
        "sim-error-event",
        |h| refused(h, 500, "server_error"),
        |h| {
            h.whole
                && h.events().last().is_some_and(|event| event["error"]["code"] == "server_error")
        },
    ),
    (
        "sim-empty",
        |h| h.whole && h.json()["choices"][0]["message"]["content"] == "",
        |h| h.whole && h.done() && h.text().is_empty() && h.reason().as_deref() == Some("stop"),
    ),
    (
        "sim-content-filter",
        |h| h.whole && h.json()["choices"][0]["finish_reason"] == "content_filter",
        |h| begun(h) && h.done() && h.reason().as_deref() == Some("content_filter"),
    ),
];

#[test]
fn each_fault_does_what_it_says() {
    let sim = Sim::start(Config::default());
    std::thread::scope(|scope| {
        for (model, plain, stream) in EXPECTED {
            let sim = &sim;
            scope.spawn(move || {
                let heard = sim.plain(model);
                assert!(plain(&heard), "{model}, plain: {heard:#?}");
                let heard = sim.stream(model);
                assert!(stream(&heard), "{model}, stream: {heard:#?}");
            });
        }
    });
}

#[test]
fn every_fault_is_listed_and_tested() {
    let listed: Vec<_> = FAULTS.iter().map(|fault| fault.model).collect();
    let tested: Vec<_> = EXPECTED.iter().map(|(model, ..)| *model).collect();
    let served = Sim::start(Config::default()).send("GET", "/v1/models", "", "").json();
    let served: Vec<_> =
        served["data"].as_array().expect("a list").iter().map(|m| &m["id"]).collect();
    assert_eq!(listed, tested);
    assert_eq!(served[0], "sim");
    assert_eq!(served[1..], listed);
}

#[test]
fn a_fault_waits_for_as_many_tokens_as_asked() {
    let sim = Sim::start(Config { fault_after: Some(2), ..Config::default() });
    assert_eq!(sim.stream("sim-error-event").text(), "This answer");
    let body = json!({ "model": "sim-cut", "messages": ["hi"], "stream": true });
    let heard = sim.post("/v1/chat/completions", "x-sim-fault-after: 0\r\n", &body);
    assert_eq!((heard.text().as_str(), heard.whole), ("", false));
}

#[test]
fn delays_are_kept_and_summed_up_for_a_plain_answer() {
    let config = Config {
        first_token: Duration::from_millis(100),
        token_interval: Duration::from_millis(50),
        tokens: 3,
        ..Config::default()
    };
    let sim = Sim::start(config);
    for stream in [true, false] {
        let started = Instant::now();
        let heard = sim.chat(&json!({ "model": "m", "messages": ["hi"], "stream": stream }));
        assert_eq!(heard.status(), 200);
        assert!(started.elapsed() >= Duration::from_millis(200), "stream: {stream}");
    }
}

#[test]
fn a_request_changes_its_own_settings_only() {
    let sim = Sim::start(Config::default());
    let body = json!({ "model": "m", "messages": ["hi"] });
    let headers = "x-sim-tokens: 2\r\nx-sim-token-bytes: 10\r\n";
    let answer = sim.post("/v1/chat/completions", headers, &body).json();
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::len), Some(20));
    assert_eq!(answer["usage"]["completion_tokens"], 2);
    assert!(overloaded(&sim.post("/v1/chat/completions", "x-sim-error-rate: 1\r\n", &body)));
    assert_eq!(sim.post("/v1/chat/completions", "x-sim-tokens: few\r\n", &body).status(), 400);
    assert!(normal(&sim.plain("m")));
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let run = || {
        let config = Config { seed: Some(7), error_rate: 0.5, ..Config::default() };
        let sim = Sim::start(config);
        (0..8).map(|_| sim.plain("m").status()).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.contains(&200) && first.contains(&503), "{first:?}");
}

#[test]
fn embeddings_are_the_same_as_numbers_and_as_base64() {
    let sim = Sim::start(Config::default());
    let mut body = json!({ "model": "m", "input": ["a", "b"], "dimensions": 4 });
    let numbers = sim.post("/v1/embeddings", "", &body).json();
    body["encoding_format"] = json!("base64");
    let encoded = sim.post("/v1/embeddings", "", &body).json();
    assert_eq!(numbers["data"][1]["embedding"].as_array().map(Vec::len), Some(4));
    assert_ne!(numbers["data"][0]["embedding"], numbers["data"][1]["embedding"]);
    // 16 bytes are 24 digits, the last two of them padding.
    let digits = encoded["data"][1]["embedding"].as_str().expect("base64");
    assert!(digits.len() == 24 && digits.ends_with("=="), "{digits}");
}

#[test]
fn the_sister_endpoints_answer_in_their_shapes() {
    let sim = Sim::start(Config::default());
    let completion =
        sim.post("/v1/completions", "", &json!({ "model": "m", "prompt": ["a", "b"] })).json();
    assert_eq!(completion["choices"][1]["text"], ANSWER);
    let moderation = sim.post("/v1/moderations", "", &json!({ "input": "a" })).json();
    assert_eq!(moderation["results"][0]["flagged"], false);
    let image = sim.post("/v1/images/generations", "", &json!({ "prompt": "a", "n": 2 })).json();
    assert!(
        image["data"][1]["b64_json"].as_str().is_some_and(|png| png.starts_with("iVBORw0KGgo"))
    );
    let speech = sim.post("/v1/audio/speech", "", &json!({ "model": "m", "input": "a" }));
    assert!(speech.header("content-type") == Some("audio/wav") && speech.body.starts_with("RIFF"));
    let model = sim.send("GET", "/v1/models/sim-cut", "", "").json();
    assert_eq!((&model["id"], &model["object"]), (&json!("sim-cut"), &json!("model")));
}

/// A multipart form with a file and these fields.
fn upload(fields: &[(&str, &str)]) -> String {
    let part = "--b\r\ncontent-disposition: form-data;";
    let mut body = format!("{part} name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n");
    for (name, value) in fields {
        body.push_str(&format!("{part} name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    body + "--b--\r\n"
}

#[test]
fn an_upload_is_transcribed_as_asked() {
    let sim = Sim::start(Config::default());
    let post = |fields: &[(&str, &str)]| {
        let form = "content-type: multipart/form-data; boundary=b\r\n";
        sim.send("POST", "/v1/audio/transcriptions", form, &upload(fields))
    };
    assert_eq!(post(&[("model", "m")]).json()["text"], ANSWER);
    assert_eq!(post(&[("model", "m"), ("response_format", "text")]).body, format!("{ANSWER}\n"));
    let stream = post(&[("model", "m"), ("stream", "true")]);
    let events = stream.events();
    assert_eq!(events[0]["type"], "transcript.text.delta");
    assert_eq!(events[events.len() - 1]["type"], "transcript.text.done");
    assert!(limited(&post(&[("model", "sim-429")])));
    assert_eq!(post(&[]).status(), 400);
}

#[test]
fn what_cannot_be_answered_is_refused_in_openais_shape() {
    let sim = Sim::start(Config::default());
    for (method, path, body, status) in [
        ("POST", "/v1/chat/completions", "{\"model\":", 400),
        ("POST", "/v1/chat/completions", "{\"messages\":[]}", 400),
        ("POST", "/v1/chat/completions", "{\"model\":\"m\"}", 400),
        ("POST", "/v1/chat/completions", "{\"model\":\"m\",\"messages\":[],\"n\":1000}", 400),
        ("GET", "/v1/chat/completions", "", 405),
        ("POST", "/v1/nothing", "{}", 404),
    ] {
        let heard = sim.send(method, path, "", body);
        assert_eq!(heard.status(), status, "{method} {path} {body}");
        assert_eq!(heard.json()["error"]["type"], "invalid_request_error");
    }
}

#[test]
fn one_connection_serves_request_after_request() {
    let sim = Sim::start(Config::default());
    let mut tcp = TcpStream::connect(sim.addr).expect("the simulator listens");
    tcp.set_read_timeout(Some(LONG)).expect("a timeout");
    for _ in 0..3 {
        let body = json!({ "model": "m", "messages": ["hi"] }).to_string();
        let len = body.len();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\n";
        write!(tcp, "{head}content-length: {len}\r\n\r\n{body}").expect("the simulator reads");
        let mut raw = String::new();
        while !raw.ends_with("\"system_fingerprint\":\"fp_f107111a00\"}") {
            let mut piece = [0; 4096];
            let len = tcp.read(&mut piece).expect("an answer");
            assert!(len > 0, "closed after {raw}");
            raw.push_str(&String::from_utf8_lossy(&piece[..len]));
        }
    }
}

// The first run has the simulator in the node's own process: no request may ask for its memory.
#[test]
fn a_list_without_end_is_refused() {
    let sim = Sim::start(Config::default());
    for (path, field) in
        [("/v1/embeddings", "input"), ("/v1/moderations", "input"), ("/v1/completions", "prompt")]
    {
        for (count, n, status) in
            [(2048, 1, 200), (2049, 1, 400), (1 << 13, 1, 400), (17, 128, 400)]
        {
            // For those that make no choices, `n` is one of theirs too.
            let body = json!({ "model": "sim", "n": n, "dimensions": 1, field: vec!["a"; count] });
            let heard = sim.post(path, "", &body);
            assert_eq!(heard.status(), status, "{path} {count} {n}");
        }
    }
}
