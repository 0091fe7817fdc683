//! A request on its way out: its head, joined with the beginning of its body while that is small,
//! and the rest of the body as it lies in memory.

use std::cell::RefCell;
use std::io::Write;
use std::time::SystemTime;

use actix_http::Method;
use actix_http::header::{self, HeaderName, HeaderValue, HttpDate};
use bytes::Bytes;

use super::Call;

/// A head and what is joined with it go out in one write; beyond this, copying costs more than
/// another write does.
const JOIN: usize = 8 * 1024;

/// Headers that belong to a connection and not to a request, and those that are made here.
/// `expect` would ask for a 100 that the connection drops.
const OWN: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The time as requests show it, written anew once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    shown: RefCell<(u64, String)>,
}

/// A request and how far it went.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    front: Vec<u8>,
    /// The rest of the body.
    pieces: &'a [Bytes],
    /// How much of `front`, or behind it of the first piece, is written.
    at: usize,
    cut: bool,
}

/// True where `path` can stand in a request line.
pub(super) fn is_target(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

impl Date {
    fn write(&self, front: &mut Vec<u8>) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut shown = self.shown.borrow_mut();
        if shown.0 != second || shown.1.is_empty() {
            *shown = (second, HttpDate::from(now).to_string());
        }
        front.extend_from_slice(shown.1.as_bytes());
    }
}

impl<'a> Outgoing<'a> {
    /// The request of `call`. An empty body is announced only where the method expects a body.
    pub(super) fn new(call: &'a Call, host: &HeaderValue, date: &Date) -> Self {
        let len = call.body.len();
        let mut front = Vec::with_capacity(1024 + if len > JOIN { 0 } else { len });
        let mut put = |parts: &[&[u8]]| {
            for part in parts {
                front.extend_from_slice(part);
            }
        };
        put(&[call.method.as_str().as_bytes(), b" ", call.path.as_bytes()]);
        put(&[b" HTTP/1.1\r\nhost: ", host.as_bytes(), b"\r\n"]);
        let mut dated = false;
        for (name, value) in call.headers.iter().filter(|(name, _)| !OWN.contains(name)) {
            dated |= name == header::DATE;
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        if !dated {
            front.extend_from_slice(b"date: ");
            date.write(&mut front);
            front.extend_from_slice(b"\r\n");
        }
        let bodyless = matches!(call.method, Method::GET | Method::HEAD | Method::DELETE);
        if len > 0 || !bodyless {
            write!(front, "content-length: {len}\r\n").expect("a Vec takes all");
        }
        front.extend_from_slice(b"\r\n");
        let mut pieces = call.body.pieces();
        while let [first, rest @ ..] = pieces
            && front.len() + first.len() <= JOIN.max(front.capacity())
        {
            front.extend_from_slice(first);
            pieces = rest;
        }
        Self { front, pieces, at: 0, cut: false }
    }

    /// What is to be written next; empty where all is.
    pub(super) fn bytes(&self) -> &[u8] {
        let part = if self.front.is_empty() {
            self.pieces.first().map(Bytes::as_ref).unwrap_or_default()
        } else {
            &self.front
        };
        part.get(self.at..).unwrap_or_default()
    }

    /// So many of these bytes are written.
    pub(super) fn advance(&mut self, len: usize) {
        self.at += len;
        if self.bytes().is_empty() {
            self.at = 0;
            if self.front.is_empty() {
                self.pieces = self.pieces.get(1..).unwrap_or_default();
            } else {
                self.front = Vec::new();
            }
        }
    }

    /// Gives up what is not written.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// True once it was given up.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Headers, Payload};

    fn call(method: Method, body: Payload) -> Call {
        let path = "/v1?a=b".into();
        Call { method, path, headers: Headers::new(), body, connect: Duration::ZERO }
    }

    fn outgoing(call: &Call) -> Outgoing<'_> {
        Outgoing::new(call, &HeaderValue::from_static("example.com"), &Date::default())
    }

    // T27
    #[test]
    fn a_big_body_goes_out_from_where_it_lies_in_memory() {
        let big = Bytes::from(vec![7; 16 * 1024 * 1024 + 5]);
        let mut payload = Payload::from(Bytes::from_static(b"{"));
        payload.push(big.clone());
        payload.push(Bytes::from_static(b"}"));
        let call = call(Method::POST, payload);
        let mut request = outgoing(&call);
        assert!(request.bytes().ends_with(b"\r\n\r\n{"), "the head and what is small with it");
        request.advance(request.bytes().len());
        assert_eq!(request.bytes().as_ptr_range(), big.as_ptr_range(), "a copy");
        request.advance(1);
        assert_eq!(request.bytes().len(), big.len() - 1);
        request.advance(big.len() - 1);
        assert_eq!(request.bytes(), b"}");
        request.advance(1);
        assert_eq!(request.bytes(), b"");
    }

    #[test]
    fn a_small_body_goes_out_with_its_head() {
        let mut payload = Payload::from(Bytes::from_static(b"{"));
        payload.push(Bytes::from_static(b"}"));
        let call = call(Method::POST, payload);
        let mut request = outgoing(&call);
        let text = String::from_utf8(request.bytes().to_vec()).expect("text");
        let start = "POST /v1?a=b HTTP/1.1\r\nhost: example.com\r\ndate: ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with(" GMT\r\ncontent-length: 2\r\n\r\n{}"), "{text}");
        request.advance(text.len());
        assert_eq!(request.bytes(), b"");
    }

    #[test]
    fn an_empty_body_is_announced_where_one_is_expected() {
        for (method, announced) in [(Method::GET, false), (Method::POST, true)] {
            let call = call(method, Payload::new());
            let text = String::from_utf8(outgoing(&call).front).expect("text");
            assert_eq!(text.contains("content-length: 0\r\n"), announced, "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_request_line_is_no_target() {
        assert!(is_target("/v1/chat?a=b%20c"));
        for path in ["", "v1", "/a b", "/a#b", "/a\r\nx: y", "/\u{0}", "/\u{7f}", "/\u{e4}"] {
            assert!(!is_target(path), "{path:?}");
        }
    }
}
