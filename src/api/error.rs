//! Errors of our own as HTTP: status, headers and a body in the shape of the client's protocol.

use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::domain::{Code, Fault};
use crate::provider::openai;
use crate::proxy::{Body, Reply};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// What a client is told whose request's head did not come in time.
pub(super) const HEAD_TIMEOUT: &str = "The head of the request did not arrive in time.";

const BAD_REQUEST: &str = "This is not a clear HTTP/1.1 request: its head or the framing of its body is malformed or \
     ambiguous.";
const HEAD_TOO_LARGE: &str =
    "The head of the request is too large: at most 96 headers and 128 KiB in all.";

/// The answer to a request that ends in a fault of our own.
pub(super) fn reply(fault: &Fault) -> Reply {
    let status = StatusCode::from_u16(fault.code.status());
    reply_as(fault, status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The same under another status, where HTTP has one of its own for the case.
pub(super) fn reply_as(fault: &Fault, status: StatusCode) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = fault.retry_after {
        retry_headers(&mut headers, wait);
    }
    Reply { status, headers, body: Body::Whole(openai::error_body(fault)) }
}

/// The answer to a method that the path does not take.
pub(super) fn wrong_method(allowed: &'static str) -> Reply {
    let message = format!("This path takes {allowed} only.");
    let fault = Fault::new(Code::InvalidRequest, message);
    let mut reply = reply_as(&fault, StatusCode::METHOD_NOT_ALLOWED);
    reply.headers.insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// `Retry-After` knows whole seconds only, and too early is worse than too late.
fn retry_headers(headers: &mut HeaderMap, wait: Duration) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    let millis = wait.as_nanos().div_ceil(1_000_000);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
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
    reply(&Fault::new(Code::InvalidRequest, BAD_REQUEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_never_named_too_early() {
        for (wait, seconds, millis) in [
            (Duration::ZERO, "0", "0"),
            (Duration::from_millis(1), "1", "1"),
            (Duration::from_millis(1000), "1", "1000"),
            (Duration::from_nanos(1_000_000_001), "2", "1001"),
        ] {
            let mut headers = HeaderMap::new();
            retry_headers(&mut headers, wait);
            assert_eq!(
                headers.get(RETRY_AFTER).map(HeaderValue::as_bytes),
                Some(seconds.as_bytes())
            );
            let found = headers.get(RETRY_AFTER_MS).map(HeaderValue::as_bytes);
            assert_eq!(found, Some(millis.as_bytes()));
        }
    }

    #[test]
    fn the_refusals_of_actix_are_known_by_their_status() {
        assert_eq!(of_actix(b"HTTP/1.1 400 Bad Request\r\n").map(|(_, status)| status), Some(400));
        assert_eq!(of_actix(b"HTTP/1.0 431 Request").map(|(_, status)| status), Some(431));
        for other in [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.1 4", b"data: x", b""] {
            assert!(of_actix(other).is_none());
        }
    }
}
