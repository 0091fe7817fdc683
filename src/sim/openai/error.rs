//! Errors in OpenAI's shape, with the headers that its clients act upon.

use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{HeaderName, HeaderValue};

use super::super::config::Config;
use super::super::fault::Fault;
use super::super::json::{push, push_escaped};
use super::super::reply::Reply;
use super::super::server::Call;
use super::ask::BadRequest;

/// The error object alone, as bodies and error events carry it.
pub(super) fn object(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> String {
    let mut out = String::from(r#"{"error":{"message":""#);
    push_escaped(&mut out, message);
    push(&mut out, format_args!(r#"","type":"{kind}","#));
    for (name, value) in [("param", param), ("code", code)] {
        match value {
            Some(value) => push(&mut out, format_args!(r#""{name}":"{value}","#)),
            None => push(&mut out, format_args!(r#""{name}":null,"#)),
        }
    }
    out.truncate(out.len() - 1);
    out.push_str("}}");
    out
}

fn reply(status: StatusCode, body: String) -> Reply {
    Reply { status, ..Reply::json(body, Duration::ZERO, None) }
}

/// An error that is the client's.
pub(super) fn invalid(
    status: StatusCode,
    message: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Reply {
    reply(status, object(message, "invalid_request_error", param, code))
}

pub(super) fn bad_request(why: &BadRequest) -> Reply {
    invalid(StatusCode::BAD_REQUEST, &why.message, why.field, None)
}

pub(super) fn unknown_path(call: &Call<'_>) -> Reply {
    let message = format!("nothing is served at {} {}", call.method, call.path);
    invalid(StatusCode::NOT_FOUND, &message, None, Some("unknown_url"))
}

pub(super) fn wrong_method(call: &Call<'_>) -> Reply {
    let message = format!("{} does not take {}", call.path, call.method);
    invalid(StatusCode::METHOD_NOT_ALLOWED, &message, None, Some("method_not_supported"))
}

/// What an error event says, too.
pub(super) fn server_object() -> String {
    object("simulated server error", "server_error", None, Some("server_error"))
}

pub(super) fn server_error() -> Reply {
    reply(StatusCode::INTERNAL_SERVER_ERROR, server_object())
}

pub(super) fn unavailable(config: &Config) -> Reply {
    let body = object("simulated overload", "service_unavailable_error", None, Some("overloaded"));
    Reply {
        headers: retry_headers(config.retry_after),
        ..reply(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

/// The faults that are an HTTP error; none for all others.
pub(super) fn of_fault(fault: Fault, config: &Config) -> Option<Reply> {
    Some(match fault {
        Fault::RateLimited => rate_limited(config.retry_after),
        Fault::ServerError => server_error(),
        Fault::Unavailable => unavailable(config),
        Fault::Unauthorized => {
            let message = "simulated refusal of the credential";
            invalid(StatusCode::UNAUTHORIZED, message, None, Some("invalid_api_key"))
        }
        Fault::ContextLength => {
            let message = "simulated context of 8192 tokens is too short for these 9000";
            let code = Some("context_length_exceeded");
            invalid(StatusCode::BAD_REQUEST, message, Some("messages"), code)
        }
        _ => return None,
    })
}

fn rate_limited(retry_after: Duration) -> Reply {
    let code = Some("rate_limit_exceeded");
    let body = object("simulated rate limit reached", "requests", None, code);
    let mut headers = retry_headers(retry_after);
    let reset = format!("{}ms", retry_after.as_millis());
    for (name, value) in [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", &reset),
    ] {
        headers.extend(header(name, value));
    }
    Reply { headers, ..reply(StatusCode::TOO_MANY_REQUESTS, body) }
}

/// `Retry-After` in whole seconds, rounded up, and in milliseconds.
fn retry_headers(after: Duration) -> Vec<(HeaderName, HeaderValue)> {
    let seconds = after.as_millis().div_ceil(1000).to_string();
    let millis = after.as_millis().to_string();
    let named = [header("retry-after", &seconds), header("retry-after-ms", &millis)];
    named.into_iter().flatten().collect()
}

fn header(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
}
