//! T31d, the part that one node has: no secret, prompt or answer in logs, metrics or errors.

use serde_json::json;

use crate::support::client::{ask, get, post};
use crate::support::node::metrics;
use crate::support::process::Process;
use crate::support::wall::{Script, Wall};

const CHAT: &str = "/v1/chat/completions";

/// What must not show, each by a name of its own.
const KEY: &str = "canary-client-key-71";
const OTHER_KEY: &str = "canary-wrong-key-72";
const PROVIDER_KEY: &str = "canary-provider-key-73";
const LITERAL_KEY: &str = "canary-literal-key-74";
const TOKEN: &str = "canary-admin-token-75";
const PROMPT: &str = "canary prompt 76";
const ANSWER: &str = "canary answer 77";
const ALL: [&str; 7] = [KEY, OTHER_KEY, PROVIDER_KEY, LITERAL_KEY, TOKEN, PROMPT, ANSWER];

fn shows_none(what: &str, text: &str) {
    for canary in ALL {
        let at = text.find(canary);
        let around = at.map(|at| &text[at.saturating_sub(300)..(at + 60).min(text.len())]);
        assert_eq!(around, None, "{what} shows {canary}");
    }
    assert!(!text.contains("canary"), "{what} shows a part of one");
}

/// A provider that repeats all it is told, in answers, errors and events of errors.
fn parrot() -> Wall {
    Wall::start(|attempt| {
        let told = format!("{PROMPT} {ANSWER} {}", attempt.header("authorization").unwrap_or("-"));
        let error = json!({ "error": { "message": told, "code": "invalid_api_key" } }).to_string();
        let content = |text: &str| {
            json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string()
        };
        match attempt.json()["user"].as_str().unwrap_or_default() {
            "401" => Script::json(401, error),
            "reset" => Script::new().reset(),
            "garbage" => Script::new().send(format!("{told}\r\n\r\n")).close(),
            "page" => Script::new().send(crate::support::wall::answer(
                200,
                &[("content-type", "text/html")],
                &told,
            )),
            "stream" => Script::sse([content(ANSWER)]),
            "cut" => Script::sse_head().event(content(ANSWER)).reset(),
            "malformed" => Script::sse_head().event(content(ANSWER)).event(&told).done(),
            "error event" => Script::sse_head().event(error).end_chunks(),
            _ => Script::json(200, json!({ "choices": [{ "message": told }] }).to_string()),
        }
    })
}

fn document(wall: &Wall) -> String {
    format!(
        "providers:
  named: {{ protocol: openai, base_url: \"{0}\", api_key: \"${{SECRET}}\" }}
  literal: {{ protocol: openai, base_url: \"{0}\", api_key: {LITERAL_KEY} }}
targets: {{ a: {{ provider: named }}, b: {{ provider: literal }} }}
pools: {{ one: {{ tiers: [[a], [b]] }} }}
keys: [{{ name: k, key: \"${{KEY}}\", models: [one] }}]
",
        wall.base_url("/v1")
    )
}

// T31d, the part that one node has
#[tokio::test]
async fn no_secret_shows_in_logs_metrics_or_errors() {
    let wall = parrot();
    let env = [
        ("FLOTILLA_LOG", "trace,actix_http=trace,actix_web=trace,actix_server=trace"),
        ("FLOTILLA_ADMIN_TOKEN", TOKEN),
        ("SECRET", PROVIDER_KEY),
        ("KEY", KEY),
    ];
    let mut node = Process::start(&document(&wall), &env);
    let bearer = format!("Bearer {KEY}");
    let wrong = format!("Bearer {OTHER_KEY}");
    let body = |user: &str, model: &str| {
        let stream = !matches!(user, "401" | "plain");
        let message = json!({ "role": "user", "content": PROMPT });
        let body = json!({ "model": model, "user": user, "stream": stream, "messages": [message] });
        body.to_string().into_bytes()
    };

    // What is passed on holds the answer; what is our own holds nothing of it.
    let usual = [("authorization", bearer.as_str())];
    for user in ["plain", "stream", "cut", "malformed"] {
        let response = ask(node.data, &post(CHAT, &usual, &body(user, "one"))).await;
        assert_eq!(response.status, 200, "{user}: {}", response.text());
        assert!(response.text().contains(ANSWER), "{user}: it is an answer");
    }
    let mut own = Vec::new();
    for user in ["401", "reset", "garbage", "page", "error event"] {
        own.push((502, post(CHAT, &usual, &body(user, "one"))));
    }
    own.extend([
        (404, post(CHAT, &usual, &body("x", "none"))),
        (401, post(CHAT, &[("authorization", &wrong)], &body("x", "one"))),
        (401, post(CHAT, &[("authorization", &bearer), ("x-api-key", OTHER_KEY)], b"{}")),
        (401, get(&format!("/v1/models?key={OTHER_KEY}"), &[])),
        (
            400,
            post(CHAT, &usual, format!("{{\"model\": \"one\", \"{PROMPT}\": {KEY}}}").as_bytes()),
        ),
        (400, post(CHAT, &usual, &body("x", "one")[..60])),
        (404, post(&format!("/v1/files?key={KEY}"), &usual, &body("x", "one"))),
        (405, get(&format!("{CHAT}?key={KEY}"), &[])),
        (400, format!("GET /v1/models?key={KEY} HTTP/1.1\r\n{OTHER_KEY}\r\n\r\n").into_bytes()),
        (400, format!("{KEY} {PROMPT}\r\n\r\n").into_bytes()),
    ]);
    for (status, request) in own {
        let response = ask(node.data, &request).await;
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(response.status, status, "{shown}: {}", response.text());
        shows_none(&shown.replace("canary", "..."), &format!("{response:?}{}", response.text()));
    }
    for path in ["/healthz", "/readyz", "/admin/v1/keys", "/admin/v1/document"] {
        for token in [TOKEN, OTHER_KEY] {
            let token = format!("Bearer {token}");
            let response = ask(node.admin, &get(path, &[("authorization", &token)])).await;
            shows_none(path, &format!("{response:?}{}", response.text()));
        }
    }
    shows_none("/metrics", &metrics(node.admin));

    // A document that is wrong is reported without what it holds.
    let broken = format!("{}\n  extra: {LITERAL_KEY}\n", document(&wall))
        .replace("protocol: openai", "protocoll: openai")
        .replace(&format!("api_key: {LITERAL_KEY}"), &format!("api_key: [{LITERAL_KEY}]"));
    std::fs::write(&node.document, broken).expect("the document is written");
    node.says("not served").await;
    let wrong_types = format!("providers: {LITERAL_KEY}\npools: {{ one: {LITERAL_KEY} }}\n");
    std::fs::write(&node.document, wrong_types).expect("the document is written");
    node.says("providers").await;

    node.signal("TERM");
    assert_eq!(node.exit().await, Some(0));
    let log = node.stderr();
    assert!(log.contains(r#""level":"TRACE""#), "the log is as loud as it can be");
    assert!(log.contains(r#""message":"request""#) && log.contains("refused our credential"));
    assert!(log.contains("invalid_api_key"), "its reason shows");
    shows_none("the log", &log);
}
