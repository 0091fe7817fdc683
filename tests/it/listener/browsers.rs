//! Web pages: CORS where it is wanted, and no access where nobody is asked for a key.

use super::rig::{Node, config};
use flotilla::api::DataConfig;

const ORIGIN: &str = "origin: https://app.example\r\n";

fn cors(origin: &str) -> DataConfig {
    DataConfig { cors_origins: vec![origin.into()], ..config() }
}

fn preflight(node: &Node, origin: &str) -> super::rig::Answer {
    let mut client = node.connect();
    client.send(format!(
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\n\
         access-control-request-method: POST\r\n\
         access-control-request-headers: authorization,content-type\r\n\r\n"
    ));
    client.answer()
}

#[test]
fn without_a_list_of_origins_no_page_may_read_anything() {
    let node = Node::start(config());
    let answer = preflight(&node, "https://app.example");
    assert_eq!(answer.status, 204);
    assert!(!answer.head.contains("access-control-"), "{}", answer.head);
    let answer = node.connect().post("echo", ORIGIN, "{}").answer();
    assert!(!answer.head.contains("access-control-"), "{}", answer.head);
}

#[test]
fn a_listed_origin_may_ask_first_and_read_streams_and_errors() {
    let node = Node::start(cors("https://app.example"));
    let answer = preflight(&node, "https://app.example");
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-max-age", "600"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{}", answer.head);
    }
    let stream = node.connect().post("events", ORIGIN, "{}").read_past("\r\n\r\n");
    let error = node.connect().get("/nowhere", ORIGIN).head;
    for head in [stream, error] {
        assert!(head.contains("access-control-allow-origin: https://app.example\r\n"), "{head}");
        let exposed = head.lines().find(|line| line.starts_with("access-control-expose-headers: "));
        let exposed = exposed.unwrap_or_default();
        for name in ["x-flotilla-request-id", "retry-after", "x-ratelimit-remaining-requests"] {
            assert!(exposed.contains(name), "{head}");
        }
        assert!(!head.contains("access-control-allow-credentials"), "{head}");
    }
    let other = preflight(&node, "https://evil.example");
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!(other.header("vary"), Some("origin"));
}

#[test]
fn a_star_lists_every_origin() {
    let node = Node::start(cors("*"));
    let answer = preflight(&node, "https://any.example");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
}

#[test]
fn an_open_node_on_loopback_answers_to_its_own_names_only() {
    let node = Node::start_as(config(), true);
    let ask = |host: &str, origin: &str| {
        let mut client = node.connect();
        client.send(format!("GET /livez HTTP/1.1\r\nhost: {host}\r\n{origin}\r\n"));
        client.answer()
    };
    let port = node.addr.port();
    for host in ["localhost".into(), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(ask(&host, "").status, 200, "{host}");
    }
    for (host, origin) in [("evil.example", ""), ("localhost", "origin: https://evil.example\r\n")]
    {
        let answer = ask(host, origin);
        assert_eq!((answer.status, answer.code().as_str()), (403, "invalid_request"), "{host}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.body.contains("configure keys"), "{}", answer.body);
    }
}

#[test]
fn a_node_with_keys_answers_under_every_name() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.send("GET /livez HTTP/1.1\r\nhost: api.example\r\norigin: https://x.example\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}
