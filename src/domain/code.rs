//! The stable error codes of the data listener, and the one table of their statuses.

use std::borrow::Cow;
use std::time::Duration;

/// A stable error code, as clients see it in the error body of their protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// No key, an unknown, an expired or a revoked one.
    InvalidKey,
    /// The key may not use this model.
    ModelNotAllowed,
    /// No pool and no route knows this model.
    ModelNotFound,
    /// No such path, or one that this fleet does not serve.
    EndpointNotServed,
    /// The body is larger than `FLOTILLA_BODY_LIMIT`.
    BodyTooLarge,
    /// The demand is larger than the whole limit; no retry helps.
    RequestExceedsLimit,
    /// A field that decides something stands twice in the body.
    DuplicateField,
    /// The request cannot be understood.
    InvalidRequest,
    /// The client was too slow in sending its request.
    RequestTimeout,
    /// Too many body bytes in flight on this node.
    NodeBusy,
    /// Over a limit of requests.
    RateLimited,
    /// Over a limit of tokens.
    TokensLimited,
    /// Over a limit of cost.
    CostLimited,
    /// Over a limit of concurrency.
    ConcurrencyLimited,
    /// The budget of the period is used up.
    BudgetExceeded,
    /// The node is going away; another one will serve.
    NodeDraining,
    /// The store does not answer and the limit says `fail_closed`.
    StoreUnavailable,
    /// The configuration is older than `FLOTILLA_MAX_STALE`.
    ConfigStale,
    /// No target may serve this request now.
    NoTarget,
    /// The provider failed, or refused our credential.
    UpstreamError,
    /// The provider did not answer in time.
    UpstreamTimeout,
    /// The answer broke off after it had begun.
    StreamInterrupted,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::InvalidKey,
        Self::ModelNotAllowed,
        Self::ModelNotFound,
        Self::EndpointNotServed,
        Self::BodyTooLarge,
        Self::RequestExceedsLimit,
        Self::DuplicateField,
        Self::InvalidRequest,
        Self::RequestTimeout,
        Self::NodeBusy,
        Self::RateLimited,
        Self::TokensLimited,
        Self::CostLimited,
        Self::ConcurrencyLimited,
        Self::BudgetExceeded,
        Self::NodeDraining,
        Self::StoreUnavailable,
        Self::ConfigStale,
        Self::NoTarget,
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::StreamInterrupted,
    ];

    /// The code as text, and its HTTP status.
    const fn entry(self) -> (&'static str, u16) {
        match self {
            Self::InvalidKey => ("invalid_key", 401),
            Self::ModelNotAllowed => ("model_not_allowed", 403),
            Self::ModelNotFound => ("model_not_found", 404),
            Self::EndpointNotServed => ("endpoint_not_served", 404),
            Self::BodyTooLarge => ("body_too_large", 413),
            Self::RequestExceedsLimit => ("request_exceeds_limit", 413),
            Self::DuplicateField => ("duplicate_field", 400),
            Self::InvalidRequest => ("invalid_request", 400),
            Self::RequestTimeout => ("request_timeout", 408),
            Self::NodeBusy => ("node_busy", 429),
            Self::RateLimited => ("rate_limited", 429),
            Self::TokensLimited => ("tokens_limited", 429),
            Self::CostLimited => ("cost_limited", 429),
            Self::ConcurrencyLimited => ("concurrency_limited", 429),
            Self::BudgetExceeded => ("budget_exceeded", 429),
            Self::NodeDraining => ("node_draining", 503),
            Self::StoreUnavailable => ("store_unavailable", 503),
            Self::ConfigStale => ("config_stale", 503),
            Self::NoTarget => ("no_target", 503),
            Self::UpstreamError => ("upstream_error", 502),
            Self::UpstreamTimeout => ("upstream_timeout", 504),
            // Only ever seen inside a stream; the number serves logs and metrics.
            Self::StreamInterrupted => ("stream_interrupted", 502),
        }
    }

    /// The stable text of this code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The HTTP status that goes with this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.entry().1
    }
}

/// A request that ends in an error of our own: what the client is told.
///
/// The message is written for the client and never holds a secret, a prompt or an upstream's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Fault {
    /// The stable code, which also gives the status.
    pub code: Code,
    /// What happened and what to do, in one or two short sentences.
    pub message: Cow<'static, str>,
    /// When a retry makes sense, if that is known.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with nothing to say about retries.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same fault with the time after which a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_its_own_text_and_an_error_status() {
        let texts: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }
}
