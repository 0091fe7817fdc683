//! The answers to health probes, the same on both listeners.

use actix_http::StatusCode;

use crate::domain::Phase;

/// The phase as people and probes read it.
pub(super) const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Ending => "ending",
    }
}

/// `/readyz`: whether new requests should come here.
pub(super) const fn ready(phase: Phase) -> (StatusCode, &'static str) {
    match phase {
        Phase::Serving => (StatusCode::OK, "ready\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
    }
}

/// `/livez`: the process answers; nothing else is looked at.
pub(super) const LIVE: &str = "ok\n";
