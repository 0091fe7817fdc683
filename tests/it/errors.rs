//! T22: what a provider answers instead of an answer, and what the client then sees: the
//! provider's own status, body and rate headers, or an error of ours that shows nothing of it.

use serde_json::{Value, json};

use crate::support::client::{Response, ask, post};
use crate::support::node::Node;
use crate::support::wall::{Attempt, Script, Wall, answer};

const CHAT: &str = "/v1/chat/completions";
/// Stands in everything that must not reach a client.
const CANARY: &str = "canary-7f3a";

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The provider's own status, body and headers.
    Own,
    /// 502 `upstream_error`, and nothing of the provider's.
    Ours,
    /// A success, as it came.
    Answer,
}

use Seen::{Answer, Ours, Own};

/// One way to answer.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    seen: Seen,
    /// Attempts where the pool has one target.
    alone: usize,
    /// Whether another target is asked, where there is one.
    falls_back: bool,
}

/// Headers that a client may see, and some that it may not.
const HEADERS: [(&str, &str); 8] = [
    ("content-type", "application/json; charset=utf-8"),
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-remaining-tokens", "0"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("x-request-id", "req_1"),
    ("set-cookie", CANARY),
    ("server", CANARY),
    ("openai-organization", CANARY),
];
const PASSED: usize = 5;

/// The body of an error; its spaces, order and unknown fields are the provider's own.
fn body(status: u16) -> String {
    format!(
        "{{ \"error\":{{\"code\" : \"of-{status}\", \"message\":\"\\u00fc says the provider\",\
         \"type\":\"t\",\"param\":null, \"extra\":[1,2]}} }}\n"
    )
}

fn status(name: &'static str, status: u16, more: &[(&str, &str)]) -> Case {
    let headers: Vec<_> = HEADERS.iter().chain(more).copied().collect();
    let bytes = answer(status, &headers, body(status)).to_vec();
    Case { name, bytes, seen: Own, alone: 1, falls_back: false }
}

fn raw(name: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    let bytes = bytes.as_ref().to_vec();
    Case { name, bytes, seen: Ours, alone: 3, falls_back: true }
}

impl Case {
    /// Another target is tried, the same one never again.
    fn elsewhere(self) -> Self {
        Self { falls_back: true, ..self }
    }

    /// Tried again, here and elsewhere.
    fn again(self) -> Self {
        Self { falls_back: true, alone: 3, ..self }
    }
}

fn credential(name: &'static str, status: u16) -> Case {
    let body = format!("{{\"error\":{{\"message\":\"Incorrect key {CANARY}\"}}}}");
    let headers = [("x-ratelimit-limit-requests", CANARY), ("www-authenticate", CANARY)];
    raw(name, answer(status, &headers, body)).once()
}

impl Case {
    fn once(self) -> Self {
        Self { alone: 1, ..self }
    }
}

fn cases(trap: &str) -> Vec<Case> {
    let page = format!("<html>{CANARY}</html>");
    let redirect = |name, status| {
        let location = format!("{trap}/{CANARY}");
        raw(name, answer(status, &[("location", location.as_str())], &page)).once()
    };
    let html = [("content-type", "text/html; charset=utf-8")];
    let json = [("content-type", "application/json")];
    vec![
        status("400", 400, &[]),
        status("404", 404, &[]),
        status("409", 409, &[]),
        status("413", 413, &[]),
        status("422", 422, &[]),
        credential("401", 401),
        credential("403", 403),
        status("408", 408, &[]).again(),
        status("429", 429, &[]).again(),
        status("429 for long", 429, &[("retry-after", "30")]).elsewhere(),
        status("429 for long, in milliseconds", 429, &[("retry-after-ms", "30000")]).elsewhere(),
        status("429 for a moment", 429, &[("retry-after-ms", "20"), ("retry-after", "1")]).again(),
        status("429 with a flag", 429, &[("x-should-retry", "false"), ("retry-after", "9")])
            .elsewhere(),
        status("500", 500, &[]).again(),
        status("501", 501, &[]).elsewhere(),
        status("502", 502, &[]).again(),
        status("503", 503, &[]).again(),
        status("503 for long", 503, &[("retry-after", "30")]).elsewhere(),
        status("504", 504, &[]).again(),
        status("529", 529, &[]).again(),
        Case { bytes: answer(503, &[], "").to_vec(), ..status("503, no body", 503, &[]).again() },
        redirect("301", 301),
        redirect("302", 302),
        redirect("307", 307),
        redirect("308", 308),
        raw("a page", answer(200, &html, &page)),
        raw("an empty answer", answer(200, &json, "")),
        raw("no content", "HTTP/1.1 204 X\r\n\r\n"),
        raw("garbage", format!("{CANARY}\r\n\r\n")),
        raw("no answer", ""),
        raw("half a head", "HTTP/1.1 200 OK\r\ncontent-le"),
        raw("half a body", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\""),
        status("a filtered prompt", 400, &[("x-content-filter", "1")]),
        filtered(),
    ]
}

/// What a provider's filter let through: an answer like any other.
fn filtered() -> Case {
    let body = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",
        "content":"so far"},"finish_reason":"content_filter"}]}"#;
    let bytes = answer(200, &HEADERS, body).to_vec();
    Case { name: "a filtered answer", bytes, seen: Answer, alone: 1, falls_back: false }
}

/// A wall that plays the case that a request names in its message, then closes.
fn wall(cases: &[Case]) -> Wall {
    let cases = cases.to_vec();
    Wall::start(move |attempt| {
        let wanted = named(attempt);
        let case = cases.iter().find(|case| case.name == wanted).expect("a case");
        Script::new().send(&case.bytes).close()
    })
}

fn named(attempt: &Attempt) -> String {
    attempt.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned()
}

fn count(wall: &Wall, case: &Case) -> usize {
    wall.attempts().iter().filter(|attempt| named(attempt) == case.name).count()
}

fn document(walls: &[&Wall]) -> String {
    let (mut providers, mut targets, mut tiers) = (String::new(), String::new(), String::new());
    for (number, wall) in walls.iter().enumerate() {
        let url = wall.base_url("/v1");
        providers.push_str(&format!(
            "  p{number}: {{ protocol: openai, base_url: \"{url}\", api_key: sk-{number} }}\n"
        ));
        targets.push_str(&format!("  t{number}: {{ provider: p{number}, model: up-{number} }}\n"));
        tiers.push_str(&format!("[t{number}],"));
    }
    format!("providers:\n{providers}targets:\n{targets}pools:\n  it: {{ tiers: [{tiers}] }}\n")
}

async fn ask_for(node: &Node, case: &Case, stream: bool) -> Response {
    let message = json!({ "role": "user", "content": case.name });
    let body = json!({ "model": "it", "stream": stream, "messages": [message] });
    ask(node.data, &post(CHAT, &[], body.to_string().as_bytes())).await
}

/// The answer is what the case says.
fn check(case: &Case, response: &Response, attempts: usize) {
    let name = case.name;
    assert!(response.complete, "{name}: the answer is whole");
    let told = response.header("x-flotilla-attempts");
    assert_eq!(told, Some(attempts.to_string().as_str()), "{name}");
    let shown = format!("{response:?}{}", response.text());
    assert!(!shown.contains(CANARY), "{name}: {shown}");
    for header in ["location", "set-cookie", "server", "openai-organization", "www-authenticate"] {
        assert_eq!(response.header(header), None, "{name}");
    }
    if case.seen == Ours {
        assert_eq!((response.status, response.code()), (502, "upstream_error".into()), "{name}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{name}");
        assert_eq!(response.json()["error"]["type"], "server_error", "{name}");
        assert!(!response.headers.iter().any(|(name, _)| name.starts_with("x-ratelimit")));
        return;
    }
    let own = String::from_utf8(case.bytes.clone()).expect("text");
    let (head, body) = own.split_once("\r\n\r\n").expect("a head");
    assert_eq!(response.text(), body, "{name}: byte for byte");
    assert_eq!(head.split(' ').nth(1), Some(response.status.to_string().as_str()), "{name}");
    let expected =
        head.split("\r\n").filter_map(|line| line.split_once(": ")).filter(|(name, _)| {
            HEADERS[..PASSED].iter().any(|(passed, _)| passed == name)
                || name.starts_with("retry-after")
                || *name == "x-should-retry"
        });
    for (header, value) in expected {
        assert_eq!(response.header(header), Some(value), "{name}: {header}");
    }
}

/// Each case over a pool of one target. A node's retry budget holds ten, and a case may take two.
async fn alone(stream: bool) {
    let trap = Wall::always(Script::json(200, "{}"));
    let cases = cases(&trap.base_url(""));
    let wall = wall(&cases);
    for some in cases.chunks(5) {
        let node = Node::serving(&document(&[&wall]));
        for case in some {
            let before = count(&wall, case);
            let response = ask_for(&node, case, stream).await;
            assert_eq!(count(&wall, case) - before, case.alone, "{}: attempts", case.name);
            check(case, &response, case.alone);
        }
    }
    assert_eq!(trap.connections(), 0, "no redirect is followed");
}

// T22
#[tokio::test]
async fn what_one_provider_answers_is_told_as_it_is() {
    alone(false).await;
}

// T22
#[tokio::test]
async fn what_one_provider_answers_to_a_stream_is_told_as_it_is() {
    alone(true).await;
}

// T22
#[tokio::test]
async fn another_target_answers_for_one_that_failed_and_for_no_fault_of_the_client() {
    let trap = Wall::always(Script::json(200, "{}"));
    let cases = cases(&trap.base_url(""));
    let first = wall(&cases);
    let second = Wall::always(Script::json(200, r#"{"object":"chat.completion","choices":[]}"#));
    let node = Node::serving(&document(&[&first, &second]));
    for case in &cases {
        let before = second.count();
        let response = ask_for(&node, case, false).await;
        assert_eq!(count(&first, case), 1, "{}: attempts at the first", case.name);
        assert_eq!(second.count() - before, usize::from(case.falls_back), "{}", case.name);
        if case.falls_back {
            assert_eq!(response.status, 200, "{}", case.name);
            assert_eq!(response.header("x-flotilla-target"), Some("t1"), "{}", case.name);
            assert_eq!(response.header("x-flotilla-attempts"), Some("2"), "{}", case.name);
            assert!(!format!("{response:?}").contains(CANARY), "{}", case.name);
        } else {
            check(case, &response, 1);
        }
    }
    assert_eq!(trap.connections(), 0, "no redirect is followed");
}

// T22: of two that fail, the last one asked has the word.
#[tokio::test]
async fn where_all_targets_fail_the_last_error_is_told() {
    let cases = cases("http://127.0.0.1:1");
    let case = |name| cases.iter().find(|case| case.name == name).expect("a case").clone();
    // What the first and the second answer, how often each is asked, and what is told.
    for (first, second, asked, told) in [
        ("401", "403", (1, 1), 502),
        ("429 for long", "503 for long", (1, 1), 503),
        ("500", "429", (2, 1), 500),
        ("503", "400", (1, 1), 400),
        ("302", "404", (1, 1), 404),
        // The first may pass although the second never does.
        ("garbage", "401", (2, 1), 502),
    ] {
        let play = |name| Wall::always(Script::new().send(case(name).bytes).close());
        let (one, two) = (play(first), play(second));
        let node = Node::serving(&document(&[&one, &two]));
        let response = ask_for(&node, &case("400"), false).await;
        assert_eq!((one.count(), two.count()), asked, "{first}, {second}");
        assert_eq!(response.status, told, "{first}, {second}");
        assert!(!format!("{response:?}").contains(CANARY), "{first}, {second}");
    }
}

// T22: a filter's verdict is an answer, in a stream too; nobody is asked for a better one.
#[tokio::test]
async fn a_filtered_stream_is_an_answer() {
    let delta = |text: &str| {
        json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string()
    };
    let end =
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "content_filter" }] });
    let filtered = Wall::always(Script::sse([delta("so"), delta(" far"), end.to_string()]));
    let refused = Wall::always(Script::sse([end.to_string()]));
    let other = Wall::always(Script::json(500, "{}"));
    for wall in [&filtered, &refused] {
        let node = Node::serving(&document(&[wall, &other]));
        let response = ask_for(&node, &cases("")[0], true).await;
        assert_eq!((response.status, response.complete), (200, true));
        assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
        let finish = response.text().lines().any(|line| {
            let event =
                line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
            event.is_some_and(|event: Value| {
                event["choices"][0]["finish_reason"] == "content_filter"
            })
        });
        assert!(finish, "{}", response.text());
        assert_eq!((wall.count(), other.count()), (1, 0));
    }
}
