//! What is not a clear HTTP/1.1 request.

use super::rig::{Client, Node, config};

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\n";
const SMUGGLED: &str = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

/// The answers on a connection until it closes.
fn all(node: &Node, request: &[u8]) -> String {
    let mut client = node.connect();
    client.send(request).read_to_end()
}

/// How many answers these are.
fn count(answers: &str) -> usize {
    ["2", "4", "5"].iter().map(|class| answers.matches(&format!("HTTP/1.1 {class}")).count()).sum()
}

fn assert_refused(node: &Node, name: &str, request: &[u8], status: &str) {
    let answers = all(node, request);
    assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answers}");
    assert_eq!(count(&answers), 1, "{name}: {answers}");
    let head = answers.split("\r\n\r\n").next().unwrap_or_default();
    for header in ["connection: close", "x-flotilla-request-id: ", "x-flotilla-node: "] {
        assert!(head.contains(header), "{name}: {header} is missing in {answers}");
    }
    assert!(answers.contains(r#""invalid_request""#), "{name}: {answers}");
}

#[test]
fn ambiguous_heads_are_refused_and_nothing_after_them_is_served() {
    let node = Node::start(config());
    for (name, head, rest) in [
        ("CL+TE", "host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("TE+CL", "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
        ("two lengths", "host: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n", "hello"),
        ("a list of lengths", "host: a\r\ncontent-length: 5, 5\r\n", "hello"),
        ("a signed length", "host: a\r\ncontent-length: +5\r\n", "hello"),
        ("a length that overflows", "host: a\r\ncontent-length: 99999999999999999999\r\n", ""),
        ("another coding", "host: a\r\ntransfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("identity", "host: a\r\ntransfer-encoding: identity\r\n", ""),
        ("chunked twice", "host: a\r\ntransfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ("an obscured coding", "host: a\r\ntransfer-encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ("a folded line", "host: a\r\nx-a: b\r\n c\r\ncontent-length: 0\r\n", ""),
        ("space before the colon", "host: a\r\ncontent-length : 5\r\n", "hello"),
        ("two hosts", "host: a\r\nhost: b\r\ncontent-length: 0\r\n", ""),
        ("no host", "content-length: 0\r\n", ""),
        ("NUL in a value", "host: a\r\nx-a: b\0c\r\n", ""),
    ] {
        let request = format!("{POST}{head}\r\n{rest}{SMUGGLED}");
        assert_refused(&node, name, request.as_bytes(), "400");
    }
    let old = "POST /v1/chat/completions HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_refused(&node, "HTTP/1.0 and TE", format!("{old}0\r\n\r\n").as_bytes(), "400");
    assert_refused(&node, "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "400");
    let text = node.metrics.render();
    assert!(text.contains(r#"outcome="invalid_request",status="400""#), "{text}");
}

#[test]
fn ambiguous_chunks_are_refused_and_nothing_after_them_is_served() {
    let node = Node::start(config());
    for (name, chunks) in [
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("bare LF at the end", "0\n\n"),
        ("a size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a signed size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("more data than announced", "5\r\nhello!\r\n0\r\n\r\n"),
        ("a control character in an extension", "5;a=\x01\r\nhello\r\n0\r\n\r\n"),
    ] {
        for script in ["echo", "deaf"] {
            let head = format!(
                "{POST}host: a\r\nx-script: {script}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            // In one piece, and with the head ahead, when the handler already waits.
            let at_once = format!("{head}{chunks}{SMUGGLED}");
            let mut client = node.connect();
            let answers = [all(&node, at_once.as_bytes()), {
                client.send(format!("{head}1\r\nx\r\n"));
                client.send(format!("{chunks}{SMUGGLED}")).read_to_end()
            }];
            for answers in answers {
                assert!(answers.starts_with("HTTP/1.1 400 "), "{name}, {script}: {answers}");
                assert_eq!(count(&answers), 1, "{name}: {answers}");
                assert!(answers.contains("connection: close"), "{name}: {answers}");
            }
        }
    }
}

#[test]
fn absurd_heads_are_refused() {
    let node = Node::start(config());
    let many = format!("{POST}host: a\r\n{}\r\n", "x-a: b\r\n".repeat(200));
    assert_refused(&node, "many headers", many.as_bytes(), "431");
    let large = format!("{POST}host: a\r\nx-a: {}\r\n\r\n", "x".repeat(200 << 10));
    assert_refused(&node, "a large header", large.as_bytes(), "431");
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(200 << 10));
    let answers = all(&node, long.as_bytes());
    assert!(answers.starts_with("HTTP/1.1 4"), "{answers}");
}

#[test]
fn a_request_line_must_name_the_host_of_the_request() {
    let node = Node::start(config());
    let ask = |line: &str, host: &str| {
        format!("GET {line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
    };
    assert_refused(&node, "two names", ask("http://b/livez", "a").as_bytes(), "400");
    assert_refused(&node, "two ports", ask("http://a:1/livez", "a:2").as_bytes(), "400");
    for (line, host) in
        [("http://a/livez", "A"), ("http://a:80/livez", "a"), ("http://a:1/livez", "a:1")]
    {
        let answers = all(&node, ask(line, host).as_bytes());
        assert!(answers.starts_with("HTTP/1.1 200 "), "{line}: {answers}");
    }
}

#[test]
fn a_refusal_on_a_connection_that_served_before_has_the_same_shape() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.post("echo", "", "{}").answer();
    let answer = client.send("nonsense\r\n\r\n").answer();
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    assert_eq!(client.read_to_end(), "");
}

#[test]
fn an_error_of_the_backends_own_is_never_replaced() {
    let node = Node::start(config());
    let mut client = node.connect();
    // The first answer of a connection is an error; so is the second, after a pause in which the
    // connection was idle.
    for _ in 0..2 {
        assert_eq!(client.post("echo", "", "{}").answer().status, 200);
        let answer = client.get("/nowhere", "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "endpoint_not_served"));
    }
    // A refusal that comes later than the turn in which its request began.
    for _ in 0..2 {
        let head = "host: a\r\nx-script: refuse\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{POST}{head}"));
        node.wait_for("reading");
        let answer = client.send("1\r\nx\r\n0\r\n\r\n").answer();
        assert_eq!((answer.status, answer.body.as_str()), (400, "refused"));
    }
}

#[test]
fn every_split_of_a_request_is_the_same_request() {
    let node = Node::start(config());
    let request = format!("{POST}host: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
    let mut client = node.connect();
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert!(client.read_to_end().contains("127.0.0.1 2 "));
    let pipelined = format!("{SMUGGLED}{SMUGGLED}{request}");
    let mut client: Client = node.connect();
    let answers = client.send(pipelined).read_to_end();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}
