//! How an attempt failed, and what the client is shown if no other attempt does better.

use std::time::{Duration, Instant, SystemTime};

use actix_http::StatusCode;
use actix_http::header::{self, HeaderMap, HeaderValue, HttpDate};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout_at;

use crate::domain::{Code, Fault, Headers, Secret};
use crate::policy::retry::Failure;
use crate::provider::{Scanner, StreamFault, openai};
use crate::proxy::request::{Body, Reply};
use crate::proxy::settle::Trial;
use crate::upstream::{Answer, AnswerBody, SendError};

/// Error bodies of providers are short; a longer one is not an error body.
const LONGEST_ERROR: usize = 256 * 1024;
/// A longer word is no error code.
const LONGEST_CODE: usize = 64;
/// An error body comes with its head; one that does not must not hold up the next attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Seconds beyond any clock, so that no provider's wait is too long to be one.
const FOREVER: f64 = 1e12;

/// A failed attempt.
#[derive(Debug)]
pub(in crate::proxy) struct Failed {
    /// How it failed; none where no attempt was possible or allowed at all.
    pub(in crate::proxy) failure: Option<Failure>,
    /// What the provider asked for.
    pub(in crate::proxy) retry_after: Option<Duration>,
    /// What the client is told where there is no answer to pass on.
    pub(in crate::proxy) fault: Fault,
    /// The provider's own answer, to be passed on.
    pub(in crate::proxy) answer: Option<Reply>,
}

impl From<Fault> for Failed {
    /// A request that ends without an attempt.
    fn from(fault: Fault) -> Self {
        Self { failure: None, retry_after: None, fault, answer: None }
    }
}

impl Failed {
    fn new(failure: Failure, fault: Fault) -> Self {
        Self { failure: Some(failure), ..Self::from(fault) }
    }

    /// The outcome of a request that ends with this failure.
    pub(in crate::proxy) fn outcome(&self) -> &'static str {
        if self.answer.is_some() { "provider_error" } else { self.fault.code.as_str() }
    }

    /// No answer came.
    pub(super) fn send(error: &SendError, trial: &mut Trial) -> Self {
        let (failure, outcome, message) = match error {
            SendError::ConnectTimeout | SendError::Connect(_) => {
                (Failure::Connect, "connect", "the provider cannot be reached")
            }
            SendError::AddressRefused => {
                (Failure::Address, "address", "the provider's address is not allowed")
            }
            SendError::Tls(_) => (Failure::Connect, "tls", "TLS to the provider failed"),
            SendError::Busy => {
                (Failure::Busy, "busy", "too many requests to this provider on this node")
            }
            SendError::Closed => {
                (Failure::Broken, "broken", "the provider closed the connection without an answer")
            }
            SendError::Malformed => {
                (Failure::Broken, "malformed", "the provider's answer is not HTTP")
            }
        };
        trial.end(outcome, false);
        tracing::debug!(target: "flotilla::attempt", to = %trial.target.name, %error, outcome);
        Self::new(failure, Fault::new(Code::UpstreamError, message))
    }

    /// A clock of the pool, or the request's own `total`, ran out. The provider may still be
    /// working, so an estimate is charged.
    pub(super) fn timeout(clock: Duration, total: Instant, trial: &mut Trial) -> Self {
        trial.end("timeout", true);
        let fault = if Instant::now() < total {
            let message = format!("the provider did not answer within {} ms", clock.as_millis());
            Fault::new(Code::UpstreamTimeout, message)
        } else {
            Fault::new(Code::UpstreamTimeout, "the request took longer than its total time-out")
        };
        Self::new(Failure::Timeout, fault)
    }

    /// The body broke off before the commit point.
    pub(super) fn broken(trial: &mut Trial) -> Self {
        trial.end("broken", true);
        Self::new(Failure::Broken, interrupted())
    }

    /// What came is a success of something else than this protocol.
    pub(super) fn foreign(trial: &mut Trial) -> Self {
        trial.end("malformed", false);
        let message = "the provider's answer is not of its protocol; check its base_url";
        Self::new(Failure::Broken, Fault::new(Code::UpstreamError, message))
    }

    /// What came is no stream of events, although only one can be passed on.
    pub(in crate::proxy) fn no_stream(trial: &mut Trial) -> Self {
        trial.end("malformed", true);
        let message = "the provider answered with something else than the stream it was asked for";
        Self::new(Failure::Broken, Fault::new(Code::UpstreamError, message))
    }

    /// The stream failed before its first content. An error event that stands for a status is
    /// shown as the answer that it would have been without a stream.
    pub(super) fn stream(fault: StreamFault, trial: &mut Trial) -> Self {
        let StreamFault::Provider { status, event } = fault else {
            return Self::broken(trial);
        };
        trial.end("error_event", false);
        let failure = status.map_or(Failure::Broken, Failure::Status);
        let message = "the provider ended the stream with an error before any content";
        let status = status.filter(|status| !matches!(status, 401 | 403));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let answer = status.zip(data(event)).map(|(status, body)| {
            let mut headers = HeaderMap::new();
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            Reply { status, headers, body: Body::Whole(body) }
        });
        Self { answer, ..Self::new(failure, Fault::new(Code::UpstreamError, message)) }
    }

    /// The provider answered with something else than success.
    pub(super) async fn answered(answer: Answer, deadline: Instant, trial: &mut Trial) -> Self {
        let Answer { status, headers: provider_headers, body } = answer;
        trial.end(outcome(status), false);
        let body = read(body, deadline.min(Instant::now() + LONGEST_WAIT)).await;
        let failure = Failure::Status(status.as_u16());
        let retry_after = retry_after(&provider_headers, SystemTime::now());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            tracing::warn!(
                target: "flotilla::attempt",
                to = %trial.target.name,
                status = status.as_u16(),
                code = reason(body.as_deref().unwrap_or(b""), trial.target.provider.credential.as_ref()),
                "the provider refused our credential; check the api_key of its provider"
            );
            let message = "the provider refused the gateway's own credential";
            return Self::new(failure, Fault::new(Code::UpstreamError, message));
        }
        let message = format!("the provider answered with status {}", status.as_u16());
        let fault = Fault::new(Code::UpstreamError, message);
        // A redirect is a statement about addresses that no client is to follow.
        let answer = body.filter(|_| status.is_client_error() || status.is_server_error());
        let answer = answer.map(|body| Reply {
            status,
            headers: openai::answer_headers(&provider_headers),
            body: Body::Whole(body),
        });
        Self { failure: Some(failure), retry_after, fault, answer }
    }
}

/// The fault of an answer that broke off.
pub(in crate::proxy) fn interrupted() -> Fault {
    Fault::new(Code::UpstreamError, "the provider's answer broke off")
}

fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "credential",
        429 => "status_429",
        500..=599 => "status_5xx",
        400..=499 => "status_4xx",
        _ => "status_other",
    }
}

/// The data of one event.
fn data(event: Bytes) -> Option<Bytes> {
    let mut scanner = Scanner::new();
    scanner.feed(event);
    let whole = scanner.next_event().ok()?;
    whole.or_else(|| scanner.finish())?.data
}

/// The whole of a short body; none where it is long, breaks off or comes too late.
async fn read(mut body: AnswerBody, deadline: Instant) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    loop {
        match timeout_at(deadline.into(), body.next()).await {
            Ok(None) => return Some(whole.freeze()),
            Ok(Some(Ok(piece))) if whole.len() + piece.len() <= LONGEST_ERROR => {
                whole.extend_from_slice(&piece);
            }
            _ => return None,
        }
    }
}

/// When the provider wants to be asked again.
fn retry_after(headers: &Headers, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(milliseconds));
    }
    let text = text(header::RETRY_AFTER.as_str())?;
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.min(FOREVER)).ok();
    }
    let date: SystemTime = text.parse::<HttpDate>().ok()?.into();
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// What a body says by its error's code or type, for the log. Its sentences are left out: providers
/// repeat in them the credential, and some the prompt.
fn reason(body: &[u8], credential: Option<&Secret>) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let is_code = |text: &&str| {
        let word = text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-.".contains(&byte));
        let number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let ours = credential.is_some_and(|secret| text.contains(secret.expose()));
        !text.is_empty() && text.len() <= LONGEST_CODE && (word || number) && !ours
    };
    let fields = ["code", "type"].into_iter().filter_map(|name| body["error"][name].as_str());
    fields.filter(is_code).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::header::{HeaderName, HeaderValue};

    fn wait(name: &'static str, value: &'static str) -> Option<Duration> {
        let mut headers = Headers::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        let now = "Sun, 06 Nov 1994 08:49:30 GMT".parse::<HttpDate>().expect("a date");
        retry_after(&headers, now.into())
    }

    #[test]
    fn a_retry_after_is_read_in_all_of_its_forms() {
        assert_eq!(wait("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(wait("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(
            wait("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "soon"), None);
        assert_eq!(wait("retry-after", "-1"), None);
        for ages in ["18446744073709551616", "1e300"] {
            assert_eq!(wait("retry-after", ages), Some(Duration::from_secs(1_000_000_000_000)));
        }
    }

    // T31d: what a provider says about our credential never shows it, nor what it was asked.
    #[test]
    fn only_the_code_of_a_refusal_is_logged() {
        let secret = Secret::new("canary".into());
        let logged = |error: serde_json::Value| {
            let body = serde_json::json!({ "error": error }).to_string();
            reason(body.as_bytes(), Some(&secret))
        };
        let code = |code: &str| logged(serde_json::json!({ "code": code, "message": "a prompt" }));
        assert_eq!(code("invalid_api_key").as_deref(), Some("invalid_api_key"));
        assert_eq!(code("401").as_deref(), Some("401"));
        for text in ["canary", "a prompt", "sk-0123abc", "", &"x".repeat(65)] {
            assert_eq!(code(text), None, "{text}");
        }
        let typed = serde_json::json!({ "code": null, "type": "permission_error" });
        assert_eq!(logged(typed).as_deref(), Some("permission_error"));
        assert_eq!(logged("a prompt".into()), None);
        assert_eq!(reason(b"<html>a prompt</html>", None), None);
    }
}
