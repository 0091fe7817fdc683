//! Errors of our own in OpenAI's shape, and what a provider's error event stands for.

use bytes::Bytes;
use serde::Serialize;

use crate::domain::{Code, Fault};
use crate::provider::json;

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

/// The `type` that goes with a code, in OpenAI's own words where it has one.
#[must_use]
pub const fn error_type(code: Code) -> &'static str {
    match code {
        Code::InvalidKey => "authentication_error",
        Code::ModelNotAllowed => "permission_error",
        Code::ModelNotFound
        | Code::EndpointNotServed
        | Code::BodyTooLarge
        | Code::RequestExceedsLimit
        | Code::DuplicateField
        | Code::InvalidRequest
        | Code::RequestTimeout => "invalid_request_error",
        Code::NodeBusy
        | Code::RateLimited
        | Code::TokensLimited
        | Code::CostLimited
        | Code::ConcurrencyLimited => "rate_limit_error",
        Code::BudgetExceeded => "insufficient_quota",
        Code::NodeDraining
        | Code::StoreUnavailable
        | Code::ConfigStale
        | Code::NoTarget
        | Code::UpstreamError
        | Code::UpstreamTimeout
        | Code::StreamInterrupted => "server_error",
    }
}

/// The body of an error of our own.
#[must_use]
pub fn error_body(fault: &Fault) -> Bytes {
    write(fault, b"", b"")
}

/// An error of our own inside a stream: one whole event.
#[must_use]
pub fn error_event(fault: &Fault) -> Bytes {
    write(fault, b"data: ", b"\n\n")
}

/// A provider's error body as one whole event; none where it is no error of this protocol.
#[must_use]
pub fn error_as_event(body: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let mut is_error = false;
    json::members(text, |key, _| {
        is_error |= key.name == "error";
        Ok(())
    })
    .ok()?;
    // Outside of its texts, which hold no line ends, JSON may be broken into lines anywhere.
    let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty());
    let event: String = lines.map(|line| format!("data: {line}\n")).collect();
    is_error.then(|| format!("{event}\n").into())
}

fn write(fault: &Fault, before: &[u8], after: &[u8]) -> Bytes {
    let mut text = before.to_vec();
    let error = Inner {
        message: &fault.message,
        r#type: error_type(fault.code),
        param: None,
        code: fault.code.as_str(),
    };
    serde_json::to_writer(&mut text, &Body { error })
        .expect("strings are always valid JSON and a vector takes all bytes");
    text.extend_from_slice(after);
    text.into()
}

/// The HTTP status that a provider's error stands for; `error` is the JSON that describes it.
pub(super) fn status_of(error: &str) -> Option<u16> {
    let (mut number, mut by_code, mut by_type) = (None, None, None);
    // Where the error is a text only, nothing is found, and that is right.
    json::members(error, |key, reader| {
        let raw = reader.value()?;
        let text = json::string(raw);
        let value = text.as_deref().unwrap_or(raw);
        match &*key.name {
            "status" | "status_code" | "http_code" | "http_status" | "code" | "type" => {
                number = number.or(value.parse().ok().filter(|status| (400..600).contains(status)));
                let word = &mut if key.name == "type" { &mut by_type } else { &mut by_code };
                **word = word.or(status_of_word(value));
            }
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    number.or(by_code).or(by_type)
}

/// The status behind a word such as `rate_limit_exceeded` or `ServiceUnavailableError`.
fn status_of_word(word: &str) -> Option<u16> {
    /// In this order, as a word may hold two of them.
    const WORDS: [(&str, u16); 21] = [
        ("ratelimit", 429),
        ("toomanyrequests", 429),
        ("quota", 429),
        ("resourceexhausted", 429),
        ("overloaded", 503),
        ("unavailable", 503),
        ("timeout", 504),
        ("internal", 500),
        ("servererror", 500),
        ("apierror", 500),
        ("authentication", 401),
        ("unauthorized", 401),
        ("apikey", 401),
        ("permission", 403),
        ("forbidden", 403),
        ("notfound", 404),
        ("contextlength", 400),
        ("contentfilter", 400),
        ("contentpolicy", 400),
        ("invalid", 400),
        ("badrequest", 400),
    ];
    let plain: String =
        word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // OpenAI's own rate limits have the limited thing as their type.
    if matches!(&*plain, "requests" | "tokens") {
        return Some(429);
    }
    WORDS.iter().find(|(part, _)| plain.contains(part)).map(|&(_, status)| status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_error_has_the_shape_that_clients_expect() {
        let fault = Fault::new(Code::RateLimited, "over \"rpm\"\nretry later");
        let expected = json!({"error": {"message": "over \"rpm\"\nretry later",
            "type": "rate_limit_error", "param": null, "code": "rate_limited"}});
        let body: Value = serde_json::from_slice(&error_body(&fault)).expect("JSON");
        assert_eq!(body, expected);
        let event = error_event(&fault);
        let data = event.strip_prefix(b"data: ").and_then(|text| text.strip_suffix(b"\n\n"));
        let data = data.expect("one event");
        assert!(!data.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Value>(data).expect("JSON"), expected);
    }

    #[test]
    fn an_error_of_a_provider_becomes_one_event() {
        let event = |body: &str| error_as_event(body.as_bytes()).map(|event| event.to_vec());
        let expected = b"data: {\ndata:   \"error\": {}\ndata: }\n\n".to_vec();
        assert_eq!(event("{\r\n  \"error\": {}\n\n}\n"), Some(expected));
        for other in ["", "<html>", "[]", r#"{"detail":"x"}"#, r#"{"error":{}"#] {
            assert_eq!(event(other), None, "{other}");
        }
    }

    #[test]
    fn the_type_suits_the_status() {
        for code in Code::ALL {
            let expected: &[&str] = match code.status() {
                401 => &["authentication_error"],
                403 => &["permission_error"],
                429 => &["rate_limit_error", "insufficient_quota"],
                500.. => &["server_error"],
                _ => &["invalid_request_error"],
            };
            assert!(expected.contains(&error_type(code)), "{}", code.as_str());
        }
    }

    #[test]
    fn a_providers_error_stands_for_a_status() {
        for (error, status) in [
            (r#"{"code":"rate_limit_exceeded","type":"tokens"}"#, Some(429)),
            (r#"{"type":"requests","code":null}"#, Some(429)),
            (r#"{"code":"insufficient_quota","type":"insufficient_quota"}"#, Some(429)),
            (r#"{"type":"server_error","code":null,"message":"x"}"#, Some(500)),
            (r#"{"type":"invalid_request_error","code":"context_length_exceeded"}"#, Some(400)),
            (r#"{"type":"invalid_request_error","code":"model_not_found"}"#, Some(404)),
            (r#"{"type":"invalid_request_error","code":"invalid_api_key"}"#, Some(401)),
            (r#"{"code":502,"message":"x"}"#, Some(502)),
            (r#"{"code":"503"}"#, Some(503)),
            (r#"{"code":1302,"type":"x"}"#, None),
            (r#"{"type":"ServiceUnavailableError"}"#, Some(503)),
            (r#"{"type":"overloaded_error"}"#, Some(503)),
            (r#"{"status":529,"type":"overloaded_error"}"#, Some(529)),
            (r#"{"message":"rate_limit"}"#, None),
            (r#""a text""#, None),
        ] {
            assert_eq!(status_of(error), status, "{error}");
        }
    }
}
