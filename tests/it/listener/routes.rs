//! Paths, methods and what every answer carries.

use flotilla::provider::Endpoint;

use super::rig::{Node, config};

#[test]
fn every_endpoint_takes_a_post_and_nothing_else() {
    let node = Node::start(config());
    for endpoint in Endpoint::ALL {
        let path = format!("/v1{}", endpoint.path());
        let mut client = node.connect();
        let head = format!("POST {path}?a=b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
        assert_eq!(client.send(head).answer().body, "127.0.0.1 2 a=b", "{path}");
        let answer = client.get(&path, "");
        assert_eq!((answer.status, answer.code().as_str()), (405, "invalid_request"), "{path}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    }
}

#[test]
fn what_is_not_served_says_so() {
    let node = Node::start(config());
    let mut client = node.connect();
    for path in ["/", "/v1/files", "/v1/batches", "/v1/responses", "/metrics", "/admin/v1/keys"] {
        let answer = client.get(path, "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "endpoint_not_served"), "{path}");
        assert!(answer.body.contains("Stateful APIs"), "{}", answer.body);
    }
}

#[test]
fn models_are_listed_in_the_shape_of_openai() {
    let node = Node::start(config());
    let mut client = node.connect();
    assert_eq!(client.get("/v1/models", "").code(), "invalid_key");
    let key = "authorization: Bearer k\r\n";
    let list: serde_json::Value =
        serde_json::from_str(&client.get("/v1/models", key).body).expect("JSON");
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1]["id"], "meta/llama");
    assert!(list["data"][1]["created"].is_number());
    for path in ["/v1/models/meta/llama", "/v1/models/meta%2Fllama"] {
        assert!(client.get(path, key).body.contains(r#""id":"meta/llama""#), "{path}");
    }
    assert_eq!(client.get("/v1/models/none", key).code(), "model_not_found");
}

#[test]
fn every_answer_names_its_request_and_its_node() {
    let node = Node::start(config());
    let mut client = node.connect();
    let mut ids = std::collections::HashSet::new();
    for path in ["/livez", "/readyz", "/v1/models", "/nowhere", "/v1/embeddings"] {
        let answer = client.get(path, "x-request-id: abc-1\r\n");
        let id = answer.header("x-flotilla-request-id").expect("an id").to_owned();
        assert!(id.len() == 32 && ids.insert(id), "{}", answer.head);
        assert_eq!(answer.header("x-flotilla-node"), Some("node-under-test"));
        assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    }
    let long = format!("x-request-id: {}\r\n", "x".repeat(129));
    // What SDKs show as the request's id is never missing.
    for header in [long.as_str(), ""] {
        let answer = client.get("/nowhere", header);
        assert_eq!(answer.header("x-request-id"), answer.header("x-flotilla-request-id"));
    }
}

#[test]
fn head_and_options_are_answered() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.send("HEAD /readyz HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.read_past("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    client.send("OPTIONS /v1/embeddings HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("allow")), (204, Some("POST, OPTIONS")));
    for method in ["TRACE", "DELETE", "BREW"] {
        client.send(format!("{method} /livez HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(client.answer().status, 405, "{method}");
    }
    let mut client = node.connect();
    client.send("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n");
    assert!(client.read_to_end().starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_wish_to_upgrade_is_ignored() {
    let node = Node::start(config());
    for headers in [
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        "connection: Upgrade\r\nupgrade: websocket\r\n",
    ] {
        let mut client = node.connect();
        let answer = client.get("/livez", headers);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{headers}");
        assert_eq!(answer.header("upgrade"), None);
    }
    let h2c = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n";
    assert_eq!(node.connect().post("echo", h2c, "{}").answer().body, "127.0.0.1 2 ");
}

// T30, the part of the listener: what clients make up makes no series.
#[test]
fn paths_that_clients_make_up_make_no_series() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.get("/v1/nothing", "");
    let series = |text: String| text.lines().filter(|line| line.contains("_total{")).count();
    let before = series(node.metrics.render());
    for number in 0..50 {
        client.get(&format!("/v1/nothing/{number}"), "");
    }
    assert_eq!(series(node.metrics.render()), before);
}
