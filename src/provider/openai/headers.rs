//! The headers that may cross this node, in both directions, by name.
//!
//! Allow-lists, because a header that nobody thought of must not leak: the client's credential and
//! cookies never reach a provider, a provider's cookies and account names never reach a client.

use actix_http::StatusCode;
use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::domain::{Headers, Secret};

/// Headers of a request that go to the provider.
const TO_PROVIDER: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::ACCEPT,
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("idempotency-key"),
];

/// Headers of an answer that go to the client.
const TO_CLIENT: [&str; 12] = [
    "content-type",
    "content-encoding",
    "content-disposition",
    "cache-control",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-request-id",
    "openai-processing-ms",
    "openai-version",
    "openai-model",
    "warning",
];

/// What the headers that tell a provider's limits begin with.
const RATE_LIMIT: &str = "x-ratelimit-";

/// The headers of a request to a provider: those of the client's that are allowed, and our
/// credential. The answer is asked for without compression, so that it can be read as it passes.
///
/// A credential that cannot be a header's value is left out; loading a document refuses such ones.
#[must_use]
pub fn request_headers(client: &HeaderMap, credential: Option<&Secret>) -> Headers {
    let mut headers = Headers::with_capacity(8);
    for name in &TO_PROVIDER {
        // What `connection` names was meant for this node alone. The content type never is, and
        // the body was read by it.
        let connection = client.get_all(header::CONNECTION);
        if name != header::CONTENT_TYPE && is_named_by(connection, name.as_str()) {
            continue;
        }
        // The first one is the one that this node has read.
        if let Some(value) = client.get(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if !client.contains_key(header::CONTENT_TYPE) {
        // Only JSON is read where the client does not say what it sends.
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let agent = concat!("flotilla/", env!("CARGO_PKG_VERSION"));
    headers.append(header::USER_AGENT, HeaderValue::from_static(agent));
    let value = credential
        .and_then(|secret| HeaderValue::try_from(format!("Bearer {}", secret.expose())).ok());
    if let Some(mut value) = value {
        value.set_sensitive(true);
        headers.append(header::AUTHORIZATION, value);
    }
    headers
}

/// Whether a success can be an answer of this protocol at all. None of its endpoints answers with a
/// page or with nothing: that is a portal, a proxy, or a base URL that leads somewhere else.
#[must_use]
pub fn is_answer(status: StatusCode, provider: &Headers) -> bool {
    let page = provider.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
    });
    !page && !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
}

/// The headers of a provider's answer that the client may see.
#[must_use]
pub fn answer_headers(provider: &Headers) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in provider.iter() {
        let allowed = TO_CLIENT.contains(&name.as_str()) || name.as_str().starts_with(RATE_LIMIT);
        // What `connection` names speaks of the provider's connection only.
        if allowed && !is_named_by(provider.get_all(header::CONNECTION), name.as_str()) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Whether these values of `connection` say that this header is for the next hop only.
fn is_named_by<'a>(connection: impl Iterator<Item = &'a HeaderValue>, name: &str) -> bool {
    connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'static str, &'static str)];

    fn map(pairs: Pairs<'_>) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn list(pairs: Pairs<'_>) -> Headers {
        let mut list = Headers::new();
        for (name, value) in pairs {
            list.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        list
    }

    fn names<'a>(headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Vec<&'a str> {
        let mut names: Vec<_> = headers.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    // T31c
    #[test]
    fn nothing_but_the_allowed_headers_reaches_a_provider() {
        let client = map(&[
            ("content-type", "multipart/form-data; boundary=\"a b\"; x=Y"),
            ("accept", "text/event-stream"),
            ("openai-beta", "assistants=v2"),
            ("idempotency-key", "k1"),
            ("authorization", "Bearer canary"),
            ("x-api-key", "canary"),
            ("api-key", "canary"),
            ("cookie", "canary"),
            ("proxy-authorization", "canary"),
            ("x-forwarded-for", "canary"),
            ("forwarded", "canary"),
            ("openai-organization", "canary"),
            ("openai-project", "canary"),
            ("accept-encoding", "gzip, canary"),
            ("user-agent", "canary"),
            ("host", "canary"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("expect", "100-continue"),
            ("x-stainless-lang", "canary"),
            ("x-flotilla-user", "canary"),
        ]);
        let sent = request_headers(&client, Some(&Secret::new("sk-ours".into())));
        assert_eq!(
            names(sent.iter()),
            [
                "accept",
                "accept-encoding",
                "authorization",
                "content-type",
                "idempotency-key",
                "openai-beta",
                "user-agent"
            ]
        );
        assert_eq!(sent.get("content-type"), client.get("content-type"));
        assert_eq!(sent.get("authorization").expect("set"), "Bearer sk-ours");
        assert_eq!(sent.get("accept-encoding").expect("set"), "identity");
        assert!(sent.iter().all(|(_, value)| !value.as_bytes().ends_with(b"canary")));
        assert!(!format!("{sent:?}").contains("sk-ours"), "the credential hides in Debug");
    }

    // T22
    #[test]
    fn a_page_is_no_answer() {
        let of = |status, kind| is_answer(status, &list(&[("content-type", kind)]));
        assert!(of(StatusCode::OK, "application/json") && is_answer(StatusCode::OK, &list(&[])));
        assert!(of(StatusCode::CREATED, "text/plain") && of(StatusCode::OK, "audio/mpeg"));
        assert!(!of(StatusCode::OK, "Text/HTML; charset=utf-8"));
        assert!(!of(StatusCode::NO_CONTENT, "application/json"));
    }

    // T31c
    #[test]
    fn what_connection_names_reaches_no_provider() {
        let client = map(&[
            ("content-type", "application/json"),
            ("openai-beta", "x"),
            ("idempotency-key", "k1"),
            ("connection", "close, OpenAI-Beta"),
            ("connection", "content-type"),
        ]);
        assert_eq!(
            names(request_headers(&client, None).iter()),
            ["accept-encoding", "content-type", "idempotency-key", "user-agent"]
        );
    }

    #[test]
    fn without_a_credential_none_is_sent() {
        let client = map(&[("authorization", "Bearer canary")]);
        assert_eq!(
            names(request_headers(&client, None).iter()),
            ["accept-encoding", "content-type", "user-agent"]
        );
        let broken = Secret::new("two\nlines".into());
        assert!(request_headers(&client, Some(&broken)).get("authorization").is_none());
    }

    #[test]
    fn nothing_but_the_allowed_headers_reaches_a_client() {
        let provider = list(&[
            ("content-type", "text/event-stream"),
            ("x-ratelimit-remaining-tokens", "7"),
            ("x-ratelimit-reset-requests", "1s"),
            ("retry-after-ms", "20"),
            ("x-request-id", "req_1"),
            ("openai-processing-ms", "5"),
            ("openai-organization", "canary"),
            ("set-cookie", "canary"),
            ("set-cookie", "canary2"),
            ("server", "canary"),
            ("alt-svc", "canary"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive, Retry-After"),
            ("keep-alive", "timeout=5"),
            ("retry-after", "5"),
            ("access-control-allow-origin", "*"),
            ("x-flotilla-node", "canary"),
        ]);
        assert_eq!(
            names(answer_headers(&provider).iter()),
            [
                "content-type",
                "openai-processing-ms",
                "retry-after-ms",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-requests",
                "x-request-id"
            ]
        );
    }
}
