//! Requests of all shapes, ahead of each other and cut anywhere: each gets its own answer, in
//! order, and what is ambiguous gets a refusal and ends the connection.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::rig::{Node, config};

/// One request and what must come of it.
#[derive(Clone, Debug)]
struct Ask {
    bytes: String,
    status: u16,
    /// `None` where the answer has no body, whatever it announces.
    body: Option<String>,
}

fn ask(bytes: impl Into<String>, status: u16, body: Option<&str>) -> Ask {
    Ask { bytes: bytes.into(), status, body: body.map(str::to_owned) }
}

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n";

fn good() -> impl Strategy<Value = Ask> {
    let plain = select(vec![
        ask("GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", 200, Some("ok\n")),
        ask("\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n", 200, Some("ok\n")),
        ask("GET /livez HTTP/1.1\nhost: a\n\n", 200, Some("ok\n")),
        ask("GET http://a/livez HTTP/1.1\r\nhost: a\r\n\r\n", 200, Some("ok\n")),
        ask("HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n", 200, None),
        ask("OPTIONS /livez HTTP/1.1\r\nhost: a\r\n\r\n", 204, None),
        ask(format!("{POST}content-length: 0\r\n\r\n"), 200, Some("127.0.0.1 0 ")),
    ]);
    let sized = (1_usize..20_000).prop_map(|len| {
        // A body that looks like a request is a body.
        let body = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".repeat(700);
        let bytes = format!("{POST}Content-Length: {len}\r\n\r\n{}", &body[..len]);
        ask(bytes, 200, Some(&format!("127.0.0.1 {len} ")))
    });
    let chunked = (prop::collection::vec(1_usize..3000, 0..5), any::<bool>(), any::<bool>());
    let chunked = chunked.prop_map(|(sizes, extension, trailer)| {
        let mut bytes = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
        for size in &sizes {
            let extension = if extension { " ;a=\"b\"" } else { "" };
            bytes += &format!("{size:x}{extension}\r\n{}\r\n", "\n".repeat(*size));
        }
        bytes += if trailer { "0\r\nx: y\r\nz:\r\n\r\n" } else { "0\r\n\r\n" };
        let len: usize = sizes.iter().sum();
        ask(bytes, 200, Some(&format!("127.0.0.1 {len} ")))
    });
    prop_oneof![2 => plain, 1 => sized, 1 => chunked]
}

fn bad() -> impl Strategy<Value = String> {
    let heads = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5, 5\r\n\r\nhello",
        "content-length: -5\r\n\r\nhello",
        "content-length : 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "x: y\r\n z\r\n\r\n",
        "host: b\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2 2\r\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\n",
        "transfer-encoding: chunked\r\n\r\n0\n\n",
    ];
    select(heads.to_vec()).prop_map(|head| format!("{POST}{head}"))
}

/// Takes the answer that this asks for off the beginning of what came.
fn take<'a>(answers: &'a str, ask: &Ask) -> &'a str {
    let (head, rest) = answers.split_once("\r\n\r\n").expect("a head");
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    assert_eq!(status, Some(ask.status), "{ask:?}: {answers:?}");
    match &ask.body {
        Some(body) => rest.strip_prefix(body.as_str()).expect("its own body"),
        None => rest,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 8, ..ProptestConfig::default()
    })]

    #[test]
    fn every_request_gets_its_own_answer_and_nothing_else(
        cases in prop::collection::vec((
            prop::collection::vec(good(), 0..6),
            prop::option::of(bad()),
            prop::collection::vec(any::<Index>(), 0..6),
        ), 16)
    ) {
        let node = Node::start(config());
        for (asks, bad, cuts) in cases {
            let mut bytes: String = asks.iter().map(|ask| ask.bytes.as_str()).collect();
            // Whoever sends on after a refusal may lose it: what is bad comes in one piece.
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            bytes += bad.as_deref().unwrap_or_default();
            bytes += "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let mut client = node.connect();
            client.socket.set_nodelay(true).expect("a socket");
            let mut sent = 0;
            for cut in cuts {
                client.send(&bytes[sent..cut]);
                sent = cut;
            }
            let answers = client.send(&bytes[sent..]).read_to_end();
            let mut rest = answers.as_str();
            for ask in &asks {
                rest = take(rest, ask);
            }
            let last = if bad.is_some() { 400 } else { 200 };
            assert!(rest.starts_with(&format!("HTTP/1.1 {last} ")), "{bad:?}: {rest:?}");
            assert!(rest.contains("connection: close"), "{bad:?}: {rest:?}");
            assert_eq!(rest.matches("\r\n\r\n").count(), 1, "{bad:?}: {rest:?}");
        }
    }
}
