//! T31c: which headers of a client reach a provider, on every endpoint, attempt and fallback.

use flotilla::provider::Endpoint;

use super::body_for;
use crate::support::client::ask;
use crate::support::node::Node;
use crate::support::wall::{Attempt, Script, Wall};

/// The client's key, and a part of everything else that must not arrive.
const CANARY: &str = "canary-5b1e";

/// Everything that a provider may ever get; the date is the node's own.
const ALLOWED: [&str; 10] = [
    "date",
    "host",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "openai-beta",
    "idempotency-key",
    "authorization",
];

/// A request with every header that somebody might pass on by mistake.
fn request(endpoint: Endpoint, stream: bool) -> Vec<u8> {
    let (content_type, body) = body_for(endpoint, "it", stream);
    let mut request = format!(
        "POST /v1{}?key={CANARY}&api-version={CANARY} HTTP/1.1\r\n\
         Host: {CANARY}.example\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Connection: keep-alive, x-hop, openai-beta\r\n\
         X-Hop: {CANARY}\r\n\
         OpenAI-Beta: {CANARY}\r\n\
         Idempotency-Key: mine\r\n\
         Accept: x/y\r\n\
         Authorization: Bearer {CANARY}\r\n",
        endpoint.path(),
        body.len(),
    );
    for name in ["X-Api-Key", "Api-Key", "X-Goog-Api-Key"] {
        request.push_str(&format!("{name}: {CANARY}\r\n"));
    }
    for name in [
        "Cookie",
        "User-Agent",
        "Accept-Language",
        "Referer",
        "From",
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-Ip",
        "CF-Connecting-IP",
        "True-Client-IP",
        "Traceparent",
        "Tracestate",
        "Baggage",
        "X-Request-Id",
        "X-Amzn-Trace-Id",
        "OpenAI-Organization",
        "OpenAI-Project",
        "Anthropic-Version",
        "Anthropic-Beta",
        "X-Stainless-Lang",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "X-Flotilla-User",
        "X-Flotilla-Target",
        "X-Http-Method-Override",
        "X-Original-Url",
        "If-None-Match",
        "Range",
        "Authorization-Extra",
    ] {
        request.push_str(&format!("{name}: {CANARY}\r\n"));
    }
    (request + "\r\n" + &body).into_bytes()
}

fn check(attempt: &Attempt, endpoint: Endpoint, wall: &Wall, credential: Option<&str>) {
    assert_eq!(attempt.path, format!("/p{}", endpoint.path()));
    for (name, value) in &attempt.headers {
        assert!(ALLOWED.contains(&name.as_str()), "{endpoint:?}: {name}: {value}");
        assert!(!value.contains(CANARY), "{endpoint:?}: {name}: {value}");
    }
    let mut names: Vec<_> = attempt.headers.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), attempt.headers.len(), "each stands once");
    let host = wall.address().to_string();
    assert_eq!(attempt.header("host"), Some(host.as_str()));
    assert_eq!(attempt.header("authorization"), credential, "its own credential or none");
    assert_eq!(attempt.header("idempotency-key"), Some("mine"));
    assert_eq!(attempt.header("accept"), Some("x/y"));
    assert!(!String::from_utf8_lossy(&attempt.body()).contains(CANARY));
}

// T31c
#[tokio::test]
async fn only_allowed_headers_and_its_own_credential_reach_a_provider() {
    let fails = || Wall::always(Script::json(503, "{}"));
    let (first, second) = (fails(), fails());
    let third = Wall::start(|attempt| {
        let asks = String::from_utf8_lossy(&attempt.body()).into_owned();
        if attempt.path.ends_with("/chat/completions") && asks.contains("\"stream\":true") {
            let content = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
            return Script::sse([content]);
        }
        Script::json(200, r#"{"object":"x"}"#)
    });
    let node = Node::serving(&format!(
        "providers:
  first: {{ protocol: openai, base_url: \"{}\", api_key: sk-first }}
  second: {{ protocol: openai, base_url: \"{}\", api_key: sk-second }}
  third: {{ protocol: openai, base_url: \"{}\" }}
targets: {{ a: {{ provider: first }}, b: {{ provider: second, model: other }}, c: {{ provider: third }} }}
pools: {{ it: {{ tiers: [[a], [b], [c]] }} }}
keys: [{{ name: k, key: {CANARY} }}]
",
        first.base_url("/p"),
        second.base_url("/p"),
        third.base_url("/p"),
    ));
    let mut number = 0;
    for endpoint in Endpoint::ALL {
        for stream in [false, true] {
            let response = ask(node.data, &request(endpoint, stream)).await;
            assert_eq!(response.status, 200, "{endpoint:?}: {}", response.text());
            assert_eq!(response.header("x-flotilla-attempts"), Some("3"));
            for (wall, credential) in [
                (&first, Some("Bearer sk-first")),
                (&second, Some("Bearer sk-second")),
                (&third, None),
            ] {
                check(&wall.attempt(number).await.clone(), endpoint, wall, credential);
            }
            number += 1;
        }
    }
    assert_eq!((first.count(), second.count(), third.count()), (number, number, number));
}
