//! Errors that HTTP itself asks for; `Reply::fault` writes them like all others.

use actix_http::StatusCode;
use actix_http::header::{ALLOW, HeaderValue};

use crate::domain::{Code, Fault};
use crate::proxy::Reply;

/// What a client is told whose request's head did not come in time.
pub(super) const HEAD_TIMEOUT: &str = "The head of the request did not arrive in time.";

const BAD_REQUEST: &str = "This is not a clear HTTP/1.1 request: its head or the framing of its body is malformed or \
     ambiguous.";
const HEAD_TOO_LARGE: &str =
    "The head of the request is too large: at most 96 headers and 128 KiB in all.";

/// The answer to a method that the path does not take.
pub(super) fn wrong_method(allowed: &'static str) -> Reply {
    let message = format!("This path takes {allowed} only.");
    let fault = Fault::new(Code::InvalidRequest, message);
    let mut reply = Reply::fault_as(&fault, StatusCode::METHOD_NOT_ALLOWED);
    reply.headers.insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// What actix refuses by itself comes without a body; this is the fault that it stands for, and
/// the status. None where the bytes are not such an answer.
pub(super) fn of_actix(bytes: &[u8]) -> Option<(Fault, u16)> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?;
    let status: u16 = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
    let message = match status {
        400 => BAD_REQUEST,
        431 => HEAD_TOO_LARGE,
        _ => return None,
    };
    Some((Fault::new(Code::InvalidRequest, message), status))
}

/// The body of a request breaks the rules of HTTP.
pub(super) fn broken_body() -> Reply {
    Reply::fault(&Fault::new(Code::InvalidRequest, BAD_REQUEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusals_of_actix_are_known_by_their_status() {
        assert_eq!(of_actix(b"HTTP/1.1 400 Bad Request\r\n").map(|(_, status)| status), Some(400));
        assert_eq!(of_actix(b"HTTP/1.0 431 Request").map(|(_, status)| status), Some(431));
        for other in [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.1 4", b"data: x", b""] {
            assert!(of_actix(other).is_none());
        }
    }
}
