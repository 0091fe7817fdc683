//! Tests of reading heads.

use super::*;

fn sniffed(text: &str, to_head: bool) -> (Result<Sniffed, Malformed>, String) {
    let mut bytes = text.as_bytes().to_vec();
    let sniffed = sniff(&mut bytes, to_head);
    (sniffed, String::from_utf8(bytes).expect("patching keeps ASCII"))
}

fn head(text: &str, to_head: bool) -> (Head, String) {
    match sniffed(text, to_head) {
        (Ok(Sniffed::Final(head)), patched) => (head, patched),
        (other, _) => unreachable!("{text:?} gave {other:?}"),
    }
}

#[test]
fn a_length_or_chunks_frame_the_body_and_keep_the_connection() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\n";
    let (found, patched) = head(text, false);
    let expected = Head { len: text.len(), body: Body::Length(12), keep: true, patched: false };
    assert_eq!((found, patched.as_str()), (expected, text));

    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\n";
    let (found, patched) = head(text, false);
    assert_eq!((found.len, found.body, found.keep), (text.len() - 3, Body::CHUNKED, true));
    assert_eq!(patched, text);
}

#[test]
fn a_body_that_ends_with_the_connection_is_told_to_the_codec() {
    let (found, patched) = head("HTTP/1.1 200 OK\r\nX: y\r\n\r\nabc", false);
    assert_eq!((found.body, found.keep), (Body::UntilClose, false));
    assert!(patched.starts_with("HTTP/1.0 200 OK\r\n"));
}

#[test]
fn an_http_1_0_answer_with_a_length_does_not_wait_for_a_close() {
    let (found, patched) = head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    assert_eq!((found.body, found.keep), (Body::Length(0), false));
    assert!(patched.starts_with("HTTP/1.1 200 OK\r\n"));
    let text = "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\n";
    assert!(head(text, false).0.keep);
}

#[test]
fn connection_close_ends_the_use_of_a_connection() {
    for value in ["close", "Close", "keep-alive, close", "x,close"] {
        let text = format!("HTTP/1.1 200 OK\r\nConnection: {value}\r\nContent-Length: 1\r\n\r\n");
        assert!(!head(&text, false).0.keep, "{value}");
    }
}

#[test]
fn answers_without_a_body_lose_their_framing_headers() {
    for (status, header) in [
        (204, "Content-Length: 5"),
        (304, "content-length: 5"),
        (304, "Transfer-Encoding: chunked"),
        (204, "transfer-encoding: chunked"),
    ] {
        let (found, patched) = head(&format!("HTTP/1.1 {status} X\r\n{header}\r\n\r\n"), false);
        assert_eq!((found.body, found.keep, found.patched), (Body::Length(0), true, true));
        assert!(
            patched.contains("\r\nxontent-length")
                || patched.contains("\r\nxransfer-encoding")
                || patched.contains("\r\nxontent-Length")
                || patched.contains("\r\nxransfer-Encoding")
        );
    }
    let (found, patched) = head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true);
    assert_eq!((found.body, found.keep, found.patched), (Body::Length(0), true, false));
    assert!(patched.contains("Content-Length: 5"));
}

#[test]
fn a_hidden_length_gets_its_name_back() {
    let mut headers = HeaderMap::new();
    for name in [HIDDEN_LENGTH, HIDDEN_ENCODING, HIDDEN_UPGRADE] {
        headers.insert(name, actix_http::header::HeaderValue::from_static("5"));
    }
    restore(&mut headers);
    assert_eq!(headers.get("content-length").map(|v| v.as_bytes()), Some(&b"5"[..]));
    assert_eq!(headers.len(), 1);
}

#[test]
fn an_upgrade_nobody_asked_for_is_hidden_from_the_codec() {
    let text = "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
    let (found, patched) = head(text, false);
    assert!(found.patched && patched.contains("xpgrade: websocket"));
    assert_eq!(sniffed("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", false).0, Err(Malformed));
}

#[test]
fn informational_heads_are_measured_to_be_dropped() {
    for status in [100, 102, 103, 199] {
        let interim = format!("HTTP/1.1 {status} X\r\nLink: y\r\n\r\n");
        let text = format!("{interim}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(sniffed(&text, false).0, Ok(Sniffed::Interim(interim.len())));
    }
}

#[test]
fn a_head_is_partial_until_its_last_byte() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(sniffed(&text[..end], false).0, Ok(Sniffed::Partial), "ends at {end}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_malformed() {
    for text in [
        "SSH-2.0",
        "HTTP/2",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 099 OK\r\n",
        "HTTP/1.1 200 OK\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n",
        "HTTP/1.1 200 OK\r\n X: y\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n",
        "HTTP/1.1 200 OK\r\n: y\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(sniffed(text, false).0, Err(Malformed), "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD));
    assert_eq!(sniffed(&endless, false).0, Err(Malformed));
}
