//! T31e: no URL of a client is ever called, and no configured one that leads to the link-local
//! range, however it is written.

use flotilla::provider::Endpoint;
use serde_json::{Value, json};

use super::body_for;
use crate::support::client::{Client, ask, ask_chat, get, post};
use crate::support::node::Node;
use crate::support::wall::{Script, Wall};

const CHAT: &str = "/v1/chat/completions";

/// The names under which somebody has taken an address from a client before.
const NAMES: [&str; 20] = [
    "base_url",
    "api_base",
    "apiBase",
    "baseURL",
    "api_url",
    "url",
    "endpoint",
    "azure_endpoint",
    "host",
    "proxy",
    "callback",
    "webhook",
    "callback_url",
    "image_url",
    "file_url",
    "fallbacks",
    "provider",
    "extra_body",
    "extra_headers",
    "litellm_params",
];

const HEADERS: [&str; 22] = [
    "x-base-url",
    "x-api-base",
    "x-portkey-custom-host",
    "x-target-url",
    "x-upstream",
    "x-provider",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-for",
    "x-original-url",
    "x-rewrite-url",
    "x-http-host-override",
    "x-host",
    "forwarded",
    "destination",
    "referer",
    "origin",
    "via",
    "location",
    "content-location",
    "openai-base-url",
    "x-flotilla-target",
];

/// A chat request with every field that the protocol has.
fn rich() -> Value {
    json!({
        "model": "it",
        "messages": [
            { "role": "system", "content": "s", "name": "n" },
            { "role": "user", "content": [
                { "type": "text", "text": "t" },
                { "type": "image_url", "image_url": { "url": "https://a.example/", "detail": "low" } },
                { "type": "input_audio", "input_audio": { "data": "", "format": "wav" } },
                { "type": "file", "file": { "file_id": "f", "file_data": "d", "filename": "n" } },
            ] },
            { "role": "assistant", "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" } },
            ] },
            { "role": "tool", "tool_call_id": "1", "content": "c" },
        ],
        "tools": [{ "type": "mcp", "server_url": "x", "headers": { "a": "b" }, "function": {} }],
        "tool_choice": "auto", "response_format": { "type": "json_schema", "json_schema": {} },
        "metadata": { "a": "b" }, "user": "u", "safety_identifier": "s", "stop": ["x"],
        "service_tier": "auto", "store": false, "prediction": { "type": "content", "content": "" },
        "web_search_options": { "user_location": {} }, "modalities": ["text"],
        "audio": { "voice": "v", "format": "mp3" }, "logit_bias": {}, "seed": 1, "n": 1,
        "stream": false, "stream_options": { "include_usage": true }, "max_tokens": 5,
        "prompt_cache_key": "k", "reasoning_effort": "low", "verbosity": "low",
    })
}

/// The places of a value, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), into));
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| places(value, &format!("{at}/{index}"), into));
        }
        _ => {}
    }
}

/// Bodies with this URL in every place of a request, and under every name beside it.
fn bodies(url: &str) -> Vec<String> {
    let rich = rich();
    let mut all = Vec::new();
    places(&rich, "", &mut all);
    let mut bodies = Vec::new();
    for place in all {
        let mut body = rich.clone();
        let value = body.pointer_mut(&place).expect("the place is one of it");
        if let Value::Object(fields) = value {
            for name in NAMES {
                fields.insert(name.to_owned(), json!(url));
            }
            let nested = json!({ "base_url": url, "api_base": url, "model": url });
            fields.insert("nested".to_owned(), nested);
            bodies.push(body.to_string());
        }
        let mut body = rich.clone();
        *body.pointer_mut(&place).expect("the place is one of it") = json!(url);
        bodies.push(body.to_string());
    }
    bodies
}

fn serving(wall: &Wall) -> Node {
    // A pool that takes any model: a URL in `model` is passed on as one.
    Node::serving(&format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: p }} }}
pools: {{ it: {{ tiers: [[t]], retry: {{ attempts: 1 }} }} }}
routes: [{{ name: any, match: {{ model: \"*\" }}, pool: it }}]
keys: [{{ name: k, key: k }}]
",
        wall.base_url("/v1")
    ))
}

// T31e
#[tokio::test]
async fn no_url_of_a_client_is_ever_called() {
    let wall = Wall::always(Script::json(200, r#"{"object":"x"}"#));
    let trap = Wall::always(Script::json(200, r#"{"object":"trapped"}"#));
    let node = serving(&wall);
    let port = trap.address().port();
    let mut client = Client::connect(node.data).await;
    let mut answered = 0;
    for url in [trap.base_url("/v1"), format!("//[::ffff:127.0.0.1]:{port}/")] {
        for body in bodies(&url) {
            client.send(&post(CHAT, &[("authorization", "Bearer k")], body.as_bytes())).await;
            let response = client.response().await;
            assert!(matches!(response.status, 200 | 400), "{body}: {}", response.text());
            assert!(!response.text().contains("trapped"), "{body}");
            answered += usize::from(response.status == 200);
        }
    }
    assert_eq!(wall.count(), answered, "each is one request to the configured provider");
    assert!(answered > 150, "{answered}");
    assert_eq!(trap.connections(), 0);
}

// T31e
#[tokio::test]
async fn no_header_path_or_query_leads_anywhere_else() {
    let wall = Wall::always(Script::json(200, r#"{"object":"x"}"#));
    let trap = Wall::always(Script::json(200, r#"{"object":"trapped"}"#));
    let node = serving(&wall);
    let (url, address) = (trap.base_url("/v1"), trap.address().to_string());
    let mut requests = Vec::new();
    for endpoint in Endpoint::ALL {
        let (content_type, body) = body_for(endpoint, "it", false);
        let path = format!("/v1{}", endpoint.path());
        let usual = [("authorization", "Bearer k"), ("content-type", content_type)];
        for value in [&url, &address] {
            let with = HEADERS.iter().map(|name| (*name, value.as_str())).chain(usual);
            requests.push(post(&path, &with.collect::<Vec<_>>(), body.as_bytes()));
        }
        let query = format!("{path}?url={url}&base_url={url}&target={address}");
        requests.push(post(&query, &usual, body.as_bytes()));
        // The server named in the request line, and in Host.
        let absolute = String::from_utf8(post(&format!("{url}{}", endpoint.path()), &usual, b""));
        let absolute = absolute.expect("text").replace("content-length: 0\r\n\r\n", "");
        let length = format!("content-length: {}\r\n\r\n{body}", body.len());
        requests.push(
            (absolute.replace("host: localhost", &format!("host: {address}")) + &length).into(),
        );
        let host = String::from_utf8(post(&path, &usual, body.as_bytes())).expect("text");
        requests.push(host.replace("host: localhost", &format!("host: {address}")).into());
    }
    let sent = requests.len();
    for request in requests {
        let response = ask(node.data, &request).await;
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(response.status, 200, "{shown}: {}", response.text());
    }
    for path in [format!("/v1/{url}"), format!("//{address}/v1"), format!("/v1/models/{url}")] {
        let response = ask(node.data, &get(&path, &[("authorization", "Bearer k")])).await;
        assert_eq!(response.status, 404, "{path}");
    }
    assert_eq!((wall.count(), trap.connections()), (sent, 0));
    let host = wall.address().to_string();
    assert!(wall.attempts().iter().all(|attempt| attempt.header("host") == Some(host.as_str())));
}

// T31e: what is configured is checked when it is connected to, whatever it is written as.
#[tokio::test]
async fn a_provider_in_the_link_local_range_is_never_connected_to() {
    // Nobody may listen on a link-local address here; 0.0.0.0 is refused by the same rule, and a
    // connection to it would reach this wall.
    let trap = Wall::always(Script::json(200, r#"{"object":"trapped"}"#));
    let port = trap.address().port();
    let hosts = [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "100.100.100.200",
        "0.0.0.0",
        "0",
        "0x0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "[::ffff:0:0]",
    ];
    let (mut providers, mut targets, mut pools) = (String::new(), String::new(), String::new());
    for (number, host) in hosts.iter().enumerate() {
        let url = format!("http://{host}:{port}/latest/meta-data");
        providers.push_str(&format!(
            "  p{number}: {{ protocol: openai, base_url: \"{url}\", api_key: sk }}\n"
        ));
        targets.push_str(&format!("  t{number}: {{ provider: p{number} }}\n"));
        pools.push_str(&format!(
            "  m{number}: {{ tiers: [[t{number}]], retry: {{ attempts: 1 }} }}\n"
        ));
    }
    let node = Node::serving(&format!("providers:\n{providers}targets:\n{targets}pools:\n{pools}"));
    for (number, host) in hosts.iter().enumerate() {
        let response = ask_chat(node.data, &format!("m{number}"), number % 2 == 0).await;
        assert_eq!((response.status, response.code()), (502, "upstream_error".into()), "{host}");
        let message = response.json()["error"]["message"].to_string();
        assert!(message.contains("address"), "{host}: refused, not failed: {message}");
        assert!(!message.contains(host), "{host}: {message}");
        let refused =
            format!("flotilla_attempts_total{{target=\"t{number}\",outcome=\"address\"}}");
        assert_eq!(node.metric(&refused), 1.0, "{host}");
    }
    assert_eq!(trap.connections(), 0);
}
