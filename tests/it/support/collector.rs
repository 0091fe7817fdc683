//! A trace collector: a wall that takes OTLP and knows what it was told.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use super::eventually::eventually;
use super::wall::{DEADLINE, Script, Wall};

/// A collector that listens.
pub(crate) struct Collector {
    pub(crate) wall: Wall,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    /// In hexadecimal digits, as the two below.
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    pub(crate) state: String,
    /// `server` or `client`.
    pub(crate) kind: &'static str,
    /// The message of an error; none where the status is not one.
    pub(crate) error: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) started: u64,
    pub(crate) ended: u64,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self { wall: Wall::always(Script::json(200, "")) }
    }

    /// What makes a node send its traces here.
    pub(crate) fn endpoint(&self) -> String {
        self.wall.base_url("")
    }

    /// All spans so far, in the order in which they began.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for attempt in self.wall.attempts() {
            let body = attempt.body();
            let batch = ExportTraceServiceRequest::decode(body).expect("the body is OTLP");
            for group in batch.resource_spans {
                let resource = texts(group.resource.map(|it| it.attributes).unwrap_or_default());
                let inner = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(inner.map(|span| Span {
                    kind: match span.kind() {
                        SpanKind::Server => "server",
                        SpanKind::Client => "client",
                        _ => "other",
                    },
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    state: span.trace_state,
                    error: span.status.filter(|it| it.code == 2).map(|it| it.message),
                    attributes: texts(span.attributes),
                    resource: resource.clone(),
                    started: span.start_time_unix_nano,
                    ended: span.end_time_unix_nano,
                }));
            }
        }
        spans.sort_by_key(|span| span.started);
        spans
    }

    /// Waits for so many spans.
    pub(crate) async fn await_spans(&self, count: usize) -> Vec<Span> {
        eventually(DEADLINE, || self.spans().len() >= count).await;
        self.spans()
    }
}

impl Span {
    /// An attribute as text; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Name, kind, status and attributes, a line each. What differs from run to run is a `*`.
    pub(crate) fn golden(&self) -> String {
        let mut text = format!("{} ({})", self.name, self.kind);
        if let Some(error) = &self.error {
            text.push_str(&format!(" ERROR {error}"));
        }
        let varying = ["flotilla.request_id", "server.port", "gen_ai.response.time_to_first_chunk"];
        for (name, value) in &self.attributes {
            let value = if varying.contains(&name.as_str()) { "*" } else { value };
            text.push_str(&format!("\n  {name}={value}"));
        }
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|it| (it.key, text(it.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
