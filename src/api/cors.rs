//! Cross-origin requests of web pages, off unless origins are listed.
//!
//! Credentials travel in headers that the page sets itself, never in cookies, so the answers never
//! allow a browser to add credentials of its own.

use actix_http::StatusCode;
use actix_http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use bytes::Bytes;

use crate::proxy::{Body, Reply};

/// What a page may read of an answer, beyond the few headers that browsers always show.
const EXPOSED: &str = "x-flotilla-request-id, x-flotilla-node, x-flotilla-target, \
    x-flotilla-attempts, x-request-id, retry-after, retry-after-ms, x-should-retry, \
    x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
    x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";

/// A browser asks again after ten minutes, which is as long as a changed list may take.
const MAX_AGE: &str = "600";

/// No page sends more names of headers than fit in here.
const MAX_REQUESTED: usize = 1024;

/// The origins that are allowed.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<String>,
    any: bool,
}

impl Cors {
    /// `*` among the origins allows all.
    pub(super) fn new(origins: &[String]) -> Self {
        let any = origins.iter().any(|origin| origin == "*");
        let origins = origins.iter().map(|o| o.trim_end_matches('/').to_ascii_lowercase());
        Self { origins: origins.collect(), any }
    }

    /// Whether pages of this origin may use the node.
    pub(super) fn allows(&self, origin: &HeaderValue) -> bool {
        // A browser writes origins in lower case.
        self.any || self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// The origin to answer to, where the request has one that is allowed.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(ORIGIN).filter(|origin| self.allows(origin)).cloned()
    }

    /// Lets the page read the answer.
    pub(super) fn admit(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if self.origins.is_empty() {
            return;
        }
        // The answer depends on the origin, whether this one is allowed or not.
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }

    /// The answer to a browser that asks before it sends the request; `None` where it does not.
    pub(super) fn preflight(&self, headers: &HeaderMap, methods: &'static str) -> Option<Reply> {
        self.origin(headers)?;
        headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS)
            && names.len() <= MAX_REQUESTED
        {
            // Which headers a request may have is decided where it is served, not here.
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        Some(Reply {
            status: StatusCode::NO_CONTENT,
            headers: answer,
            body: Body::Whole(Bytes::new()),
        })
    }
}
