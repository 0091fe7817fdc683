//! The two spans of a request, and what they say: its own, and one for each attempt.
//!
//! Names and values are those of OpenTelemetry's conventions where there are some; the rest begins
//! with `flotilla.`. Nothing of a prompt, an answer, a key or a header is among them.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::TARGET;
use super::context::Parent;
use crate::domain::{Origin, RequestId, Usage};

/// The longest text of a client's that a span holds: the model it asks for.
const LONGEST: usize = 128;

// The names of the GenAI conventions. The crate that has them as constants calls all of them
// deprecated, since they moved to a convention of their own.
const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const REQUEST_MODEL: &str = "gen_ai.request.model";
const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
const REASONING_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
const ERROR_TYPE: &str = "error.type";

/// A request that is traced, from its head to the end of its answer.
#[derive(Debug)]
pub struct RequestSpan {
    span: Span,
    id: RequestId,
    model: Option<Arc<str>>,
}

/// What a request was, told when it is over.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// What was asked for, in the words of the GenAI conventions.
    pub operation: &'static str,
    /// The endpoint's path below `/v1`.
    pub endpoint: &'static str,
    /// Whose it was.
    pub tenant: Option<&'a Arc<str>>,
    /// Where it went.
    pub pool: Option<&'a Arc<str>>,
    /// The target asked last.
    pub target: Option<&'a Arc<str>>,
    /// Attempts made.
    pub attempts: u32,
    /// The status that the client got; 0 where it left before.
    pub status: u16,
    /// How it ended: `ok` or what went wrong.
    pub outcome: &'static str,
    /// What all of its attempts used.
    pub usage: Usage,
}

/// An attempt of a request that is traced.
#[derive(Debug)]
pub struct AttemptSpan {
    span: Span,
    context: SpanContext,
    model: Option<Arc<str>>,
    number: u32,
    status: Option<u16>,
    first_content: Option<Duration>,
}

/// What an attempt was, told when it is over.
#[derive(Debug)]
pub struct AttemptFacts<'a> {
    /// What was asked for, in the words of the GenAI conventions.
    pub operation: &'static str,
    /// The wire protocol, in their words.
    pub protocol: &'static str,
    /// The provider's name in the document.
    pub provider: &'a Arc<str>,
    /// The target's name in the document.
    pub target: &'a Arc<str>,
    /// The model that the target asks for; none passes the client's on.
    pub model: Option<&'a Arc<str>>,
    /// Where it went.
    pub origin: &'a Origin,
    /// How it ended: `ok` or what went wrong.
    pub outcome: &'static str,
    /// What it used.
    pub usage: Usage,
}

impl RequestSpan {
    /// Starts the span, on the dispatcher that is in force.
    pub(super) fn start(id: RequestId, parent: Option<SpanContext>) -> Self {
        let span =
            tracing::info_span!(target: TARGET, parent: None, "request", otel.kind = "server");
        if let Some(parent) = parent {
            // It can only fail for a span that has begun, and this one has not.
            span.set_parent(Context::new().with_remote_span_context(parent)).ok();
        }
        // Begins it.
        drop(span.context());
        Self { span, id, model: None }
    }

    /// Notes the model that the client asks for.
    pub fn asked(&mut self, model: &str) {
        self.model = Some(shortened(model).into());
    }

    /// Starts the span of an attempt.
    #[must_use]
    pub fn attempt(&self, number: u32) -> Box<AttemptSpan> {
        let parent = self.span.context();
        // A parent in the sense of `tracing` would be given back to whatever dispatcher is in force
        // when the attempt ends, which is not this span's.
        let dispatch = self.span.with_subscriber(|(_, dispatch)| dispatch.clone());
        let new =
            || tracing::info_span!(target: TARGET, parent: None, "attempt", otel.kind = "client");
        let span = match dispatch {
            Some(dispatch) => tracing::dispatcher::with_default(&dispatch, new),
            None => Span::none(),
        };
        span.set_parent(parent).ok();
        let context = span.context().span().span_context().clone();
        let model = self.model.clone();
        Box::new(AttemptSpan { span, context, model, number, status: None, first_content: None })
    }

    /// Ends the span.
    pub fn end(self, facts: RequestFacts<'_>) {
        let RequestFacts { operation, endpoint, status, outcome, .. } = facts;
        let route = format!("/v1{endpoint}");
        let mut all = Vec::with_capacity(20);
        all.push(KeyValue::new("http.request.method", "POST"));
        if status > 0 {
            all.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        all.push(KeyValue::new(OPERATION, operation));
        all.extend(self.model.map(|model| KeyValue::new(REQUEST_MODEL, model)));
        all.push(KeyValue::new("flotilla.request_id", self.id.to_string()));
        all.push(KeyValue::new("flotilla.attempts", i64::from(facts.attempts)));
        let names = [
            ("flotilla.tenant", facts.tenant),
            ("flotilla.pool", facts.pool),
            ("flotilla.target", facts.target),
        ];
        let names = names.into_iter().filter_map(|(name, value)| Some((name, value?)));
        all.extend(names.map(|(name, value)| KeyValue::new(name, Arc::clone(value))));
        if facts.attempts > 0 {
            push_usage(&mut all, &facts.usage);
        }
        push_outcome(&mut all, outcome);
        let context = self.span.context();
        let span = context.span();
        span.update_name(format!("POST {route}"));
        all.push(KeyValue::new("http.route", route));
        // A client's mistake, and its leaving, is no fault of the server; an answer that broke off
        // is one, whatever its status was.
        if status >= 500 || (outcome != "ok" && (200..300).contains(&status) && !is_gone(outcome)) {
            span.set_status(Status::error(outcome));
        }
        span.set_attributes(all);
    }
}

impl AttemptSpan {
    /// Notes the status of the provider's answer.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Notes when the first content came, from the attempt's start.
    pub fn first_content(&mut self, after: Duration) {
        self.first_content = Some(after);
    }

    /// This span as the parent of what the provider does.
    pub(super) fn as_parent(&self) -> Parent {
        let Self { context, .. } = self;
        Parent { trace: context.trace_id(), span: context.span_id(), sampled: context.is_sampled() }
    }

    /// Ends the span.
    pub fn end(self, facts: AttemptFacts<'_>) {
        let AttemptFacts { operation, outcome, origin, .. } = facts;
        let mut all = Vec::with_capacity(20);
        all.push(KeyValue::new(OPERATION, operation));
        all.push(KeyValue::new(PROVIDER, facts.protocol));
        let model = facts.model.cloned().or(self.model);
        all.extend(model.map(|model| KeyValue::new(REQUEST_MODEL, model)));
        all.push(KeyValue::new("server.address", Arc::clone(&origin.host)));
        all.push(KeyValue::new("server.port", i64::from(origin.port)));
        all.push(KeyValue::new("flotilla.provider", Arc::clone(facts.provider)));
        all.push(KeyValue::new("flotilla.target", Arc::clone(facts.target)));
        all.push(KeyValue::new("flotilla.attempt", i64::from(self.number)));
        let status = self.status.map(i64::from);
        all.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        let first = self.first_content.map(|after| after.as_secs_f64());
        all.extend(first.map(|seconds| KeyValue::new(FIRST_CHUNK, seconds)));
        push_usage(&mut all, &facts.usage);
        push_outcome(&mut all, outcome);
        let context = self.span.context();
        let span = context.span();
        // A model from the document, so that names are few.
        match facts.model {
            Some(model) => span.update_name(format!("{operation} {model}")),
            None => span.update_name(operation),
        }
        if outcome != "ok" && !is_gone(outcome) {
            span.set_status(Status::error(outcome));
        }
        span.set_attributes(all);
    }
}

fn push_usage(all: &mut Vec<KeyValue>, usage: &Usage) {
    let count = |tokens| Value::I64(i64::try_from(tokens).unwrap_or(i64::MAX));
    all.push(KeyValue::new(INPUT_TOKENS, count(usage.input_tokens)));
    all.push(KeyValue::new(OUTPUT_TOKENS, count(usage.output_tokens)));
    if usage.cached_tokens > 0 {
        all.push(KeyValue::new(CACHED_TOKENS, count(usage.cached_tokens)));
    }
    if usage.reasoning_tokens > 0 {
        all.push(KeyValue::new(REASONING_TOKENS, count(usage.reasoning_tokens)));
    }
    if usage.estimated {
        all.push(KeyValue::new("flotilla.usage.estimated", true));
    }
}

fn push_outcome(all: &mut Vec<KeyValue>, outcome: &'static str) {
    all.push(KeyValue::new("flotilla.outcome", outcome));
    if outcome != "ok" {
        all.push(KeyValue::new(ERROR_TYPE, outcome));
    }
}

fn is_gone(outcome: &str) -> bool {
    outcome == "client_gone"
}

/// The beginning of a text, cut between characters.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or(text)
}
