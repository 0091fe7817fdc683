//! The answers to health probes, the same on both listeners.

use actix_http::StatusCode;

use crate::domain::Phase;

/// `/readyz`: whether new requests should come here. `can_serve` says whether there is a provider
/// that this node could ask.
pub(super) const fn ready(phase: Phase, can_serve: bool) -> (StatusCode, &'static str) {
    match phase {
        Phase::Serving if can_serve => (StatusCode::OK, "ready\n"),
        Phase::Serving => {
            let words = "no provider can be used on this node: their variables are not set\n";
            (StatusCode::SERVICE_UNAVAILABLE, words)
        }
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
    }
}

/// `/livez`: the process answers; nothing else is looked at.
pub(super) const LIVE: &str = "ok\n";
