//! Tests of reading heads.

use super::*;

fn sniffed(text: &str, to_head: bool) -> Result<Sniffed, Malformed> {
    sniff(text.as_bytes(), to_head)
}

fn head(text: &str, to_head: bool) -> Head {
    match sniffed(text, to_head) {
        Ok(Sniffed::Final(head)) => head,
        other => unreachable!("{text:?} gave {other:?}"),
    }
}

fn headers(text: &str) -> Result<Headers, Malformed> {
    head(text, false).headers(text.as_bytes())
}

#[test]
fn a_length_or_chunks_frame_the_body_and_keep_the_connection() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\n";
    let found = head(text, false);
    assert_eq!((found.len, found.body, found.keep), (text.len(), Body::Length(12), true));

    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\n";
    let found = head(text, false);
    assert_eq!((found.len, found.body, found.keep), (text.len() - 3, Body::CHUNKED, true));
}

#[test]
fn a_body_without_framing_ends_with_the_connection() {
    let found = head("HTTP/1.1 200 OK\r\nX: y\r\n\r\nabc", false);
    assert_eq!((found.body, found.keep), (Body::UntilClose, false));
}

#[test]
fn an_http_1_0_answer_with_a_length_does_not_wait_for_a_close() {
    let found = head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    assert_eq!((found.body, found.keep), (Body::Length(0), false));
    let text = "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\n";
    assert!(head(text, false).keep);
}

#[test]
fn headers_come_as_they_are_in_one_piece_of_memory() {
    let text = "HTTP/1.1 200\r\nX-Many: a\r\nx-many:\t b c \r\nEmpty:\r\nObs: \u{e4}\r\n\r\nabc";
    let headers = headers(text).expect("good headers");
    let many: Vec<_> = headers.get_all("x-many").map(|value| value.as_bytes()).collect();
    assert_eq!(many, [b"a".as_slice(), b"b c"]);
    assert_eq!(headers.get("empty").map(|value| value.as_bytes()), Some(&b""[..]));
    assert_eq!(headers.get("obs").map(|value| value.as_bytes()), Some("\u{e4}".as_bytes()));
    let at = |name: &str| headers.get(name).map_or(0, |value| value.as_bytes().as_ptr() as usize);
    assert!(at("obs") - at("x-many") < text.len());
}

#[test]
fn headers_that_cannot_be_passed_on_are_malformed() {
    for line in ["X: a\rb", "X: a\r", "X: \u{0}", "X: \u{7f}", "X(: y", "\u{e4}: y"] {
        let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
        assert_eq!(headers(&text).map(|_| ()), Err(Malformed), "{line:?}");
    }
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert_eq!(headers(&many(MAX_HEADERS)).map(|all| all.len()), Ok(MAX_HEADERS));
    assert_eq!(sniffed(&many(MAX_HEADERS + 1), false), Err(Malformed));
}

#[test]
fn connection_close_ends_the_use_of_a_connection() {
    for value in ["close", "Close", "keep-alive, close", "x,close"] {
        let text = format!("HTTP/1.1 200 OK\r\nConnection: {value}\r\nContent-Length: 1\r\n\r\n");
        assert!(!head(&text, false).keep, "{value}");
    }
}

#[test]
fn answers_without_a_body_announce_a_length_at_most() {
    for (status, header, left) in [
        (204, "Content-Length: 5", 1),
        (304, "content-length: 5", 1),
        (304, "Transfer-Encoding: chunked", 0),
        (204, "transfer-encoding: chunked", 0),
    ] {
        let text = format!("HTTP/1.1 {status} X\r\n{header}\r\n\r\n");
        let found = head(&text, false);
        assert_eq!((found.body, found.keep), (Body::Length(0), true));
        assert_eq!(headers(&text).map(|all| all.len()), Ok(left), "{text:?}");
    }
    let found = head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true);
    assert_eq!((found.body, found.keep), (Body::Length(0), true));
}

#[test]
fn an_upgrade_nobody_asked_for_is_passed_over() {
    let text = "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(head(text, false).body, Body::Length(1));
    assert!(headers(text).expect("good headers").get("upgrade").is_none());
    assert_eq!(sniffed("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", false), Err(Malformed));
}

#[test]
fn informational_heads_are_measured_to_be_dropped() {
    for status in [100, 102, 103, 199] {
        let interim = format!("HTTP/1.1 {status} X\r\nLink: y\r\n\r\n");
        let text = format!("{interim}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(sniffed(&text, false), Ok(Sniffed::Interim(interim.len())));
    }
}

#[test]
fn a_head_is_partial_until_its_last_byte() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(sniffed(&text[..end], false), Ok(Sniffed::Partial), "ends at {end}");
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
        "HTTP/1.1 200 O\rK\r\n",
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
        assert_eq!(sniffed(text, false), Err(Malformed), "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD));
    assert_eq!(sniffed(&endless, false), Err(Malformed));
}
