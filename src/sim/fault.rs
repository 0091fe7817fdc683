//! What can go wrong, by model name: the one list that `/v1/models` and the documents show.

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    RateLimited,
    ServerError,
    Unavailable,
    Unauthorized,
    ContextLength,
    Reset,
    Silent,
    SlowFirstToken,
    Cut,
    Stall,
    Malformed,
    NoDone,
    CutClean,
    ErrorEvent,
    Empty,
    ContentFilter,
}

/// A model that fails on purpose.
#[derive(Clone, Copy, Debug)]
pub struct FaultModel {
    /// The model to ask for.
    pub model: &'static str,
    /// What then happens, in one line.
    pub about: &'static str,
    fault: Fault,
}

/// One line of the list.
const fn line(model: &'static str, fault: Fault, about: &'static str) -> FaultModel {
    FaultModel { model, about, fault }
}

/// Every model that fails on purpose.
pub const FAULTS: &[FaultModel] = &[
    line("sim-429", Fault::RateLimited, "429 with Retry-After and rate headers"),
    line("sim-500", Fault::ServerError, "500"),
    line("sim-503", Fault::Unavailable, "503 with Retry-After"),
    line("sim-401", Fault::Unauthorized, "401, as for a wrong credential"),
    line("sim-context-length", Fault::ContextLength, "400 context_length_exceeded"),
    line("sim-reset", Fault::Reset, "connection reset once the request is read"),
    line(
        "sim-silent",
        Fault::Silent,
        "request read, nothing ever answered (reset after 10 minutes)",
    ),
    line("sim-slow-first-token", Fault::SlowFirstToken, "head at once, first token after 20 s"),
    line("sim-cut", Fault::Cut, "answer cut half-way, without the end its framing promises"),
    line(
        "sim-stall",
        Fault::Stall,
        "answer stops half-way and stays silent (cut after 10 minutes)",
    ),
    line("sim-malformed", Fault::Malformed, "an event, or a plain body, that is not JSON"),
    line("sim-no-done", Fault::NoDone, "every choice finished, clean end, but no [DONE]"),
    line(
        "sim-cut-clean",
        Fault::CutClean,
        "stream ends cleanly half-way, before any finish reason",
    ),
    line(
        "sim-error-event",
        Fault::ErrorEvent,
        "error event half-way through the stream; plain: 500",
    ),
    line("sim-empty", Fault::Empty, "a complete answer without any content"),
    line("sim-content-filter", Fault::ContentFilter, "answer ends half-way with content_filter"),
];

impl Fault {
    /// The fault that a model stands for; none for any other model.
    pub(super) fn of_model(model: &str) -> Option<Self> {
        // Nearly every request is for another model: the prefix settles those at once.
        if !model.starts_with("sim-") {
            return None;
        }
        FAULTS.iter().find(|line| line.model == model).map(|line| line.fault)
    }
}
