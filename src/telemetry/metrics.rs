//! Every metric of the node: its name, its labels and what it means, in one place; those of the
//! store are in `store` beside it.
//!
//! Names are `flotilla_<what>_<unit>`; the encoder adds `_total` to counters. A label is either
//! from a fixed set in the code or a name from the configuration: what a client sends, such as an
//! unknown model, never makes a series.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::level::{Level, UpstreamLevels};
use super::log;
use super::series::{Name, Names, Series};
use super::store::StoreMetrics;
use super::trace::Traces;
use crate::domain::Usage;

/// From a cached answer of a moderation model to a long reasoning stream at the total time limit.
const DURATION_BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// First tokens come between a few milliseconds (a simulator) and the first-token clock.
const FIRST_TOKEN_BUCKETS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Counters and histograms of the node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Names,
    requests: Series<RequestLabels, Counter>,
    request_seconds: Series<PoolLabels, Histogram>,
    attempts: Series<AttemptLabels, Counter>,
    attempt_seconds: Series<TargetLabels, Histogram>,
    first_token_seconds: Series<TargetLabels, Histogram>,
    tokens: Series<TokenLabels, Counter>,
    estimated: Series<TargetLabels, Counter>,
    body_bytes: Gauge,
    in_flight: Gauge,
    connections: Level,
    upstream_origins: Series<WorkerLabels, Gauge>,
    upstream_in_flight: Series<WorkerLabels, Gauge>,
    upstream_idle: Series<WorkerLabels, Gauge>,
    reloads: Series<OutcomeLabels, Counter>,
    revision: Gauge,
    store: StoreMetrics,
    refusals: Series<LimitLabels, Counter>,
    loaded: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    pool: Name,
    outcome: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    endpoint: &'static str,
    pool: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    target: Name,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    target: Name,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    worker: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Log lines that wait for whoever takes the log, and those that were thrown away.
#[derive(Debug)]
struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let dropped = ConstCounter::new(log::dropped());
        let help = "Log lines thrown away because the reader of the log was too slow";
        let kind = dropped.metric_type();
        dropped.encode(encoder.encode_descriptor("log_lines_dropped", help, None, kind)?)?;
        let help = "Log lines that wait to be written";
        let queued = ConstGauge::new(log::queued());
        let kind = queued.metric_type();
        queued.encode(encoder.encode_descriptor("log_lines_queued", help, None, kind)?)
    }
}

/// What became of the spans of traces.
#[derive(Debug)]
struct Spans(Traces);

impl Collector for Spans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(counts) = self.0.counts() else { return Ok(()) };
        let help = "Spans of traces: taken by the collector, failed to be, or dropped unsent";
        let kind = MetricType::Counter;
        let mut metric = encoder.encode_descriptor("trace_spans", help, None, kind)?;
        let outcomes =
            [("exported", counts.exported), ("failed", counts.failed), ("dropped", counts.dropped)];
        for (outcome, spans) in outcomes {
            let labels = OutcomeLabels { outcome };
            ConstCounter::new(spans).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Spans of traces that wait for the collector";
        let waiting = ConstGauge::new(i64::try_from(counts.waiting).unwrap_or(i64::MAX));
        let kind = waiting.metric_type();
        waiting.encode(encoder.encode_descriptor("trace_spans_queued", help, None, kind)?)
    }
}

fn durations() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

fn first_tokens() -> Histogram {
    Histogram::new(FIRST_TOKEN_BUCKETS)
}

impl Metrics {
    /// The type of what `render` returns.
    pub const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("flotilla");
        let requests = Series::new(Counter::default);
        let request_seconds = Series::new(durations);
        let attempts = Series::new(Counter::default);
        let attempt_seconds = Series::new(durations);
        let first_token_seconds = Series::new(first_tokens);
        let tokens = Series::new(Counter::default);
        let estimated = Series::new(Counter::default);
        let body_bytes = Gauge::default();
        let in_flight = Gauge::default();
        let connections = Level::default();
        let upstream_origins = Series::new(Gauge::default);
        let upstream_in_flight = Series::new(Gauge::default);
        let upstream_idle = Series::new(Gauge::default);
        let reloads = Series::new(Counter::default);
        let revision = Gauge::default();
        let store = StoreMetrics::default();
        let refusals = Series::new(Counter::default);

        let r = &mut registry;
        r.register("requests", "Requests answered, by how they ended", requests.clone());
        r.register_with_unit(
            "request_duration",
            "From a request's head to the end of its answer",
            Unit::Seconds,
            request_seconds.clone(),
        );
        r.register("attempts", "Attempts at a target, by how they ended", attempts.clone());
        r.register_with_unit(
            "attempt_duration",
            "From an attempt's start to its end",
            Unit::Seconds,
            attempt_seconds.clone(),
        );
        r.register_with_unit(
            "first_token",
            "From an attempt's start to its first content",
            Unit::Seconds,
            first_token_seconds.clone(),
        );
        r.register(
            "tokens",
            "Tokens used; cached ones are part of input, reasoning of output",
            tokens.clone(),
        );
        r.register(
            "usage_estimated",
            "Attempts whose tokens are an estimate, because the provider gave no figures",
            estimated.clone(),
        );
        r.register_with_unit(
            "body",
            "Request bodies held in memory now",
            Unit::Bytes,
            body_bytes.clone(),
        );
        r.register("requests_in_flight", "Requests not yet ended", in_flight.clone());
        r.register("connections", "Connections of clients open now", connections.0.clone());
        r.register(
            "upstream_origins",
            "Provider addresses that a worker has connections or requests to",
            upstream_origins.clone(),
        );
        r.register(
            "upstream_requests_in_flight",
            "Requests to providers not yet ended",
            upstream_in_flight.clone(),
        );
        r.register(
            "upstream_connections_idle",
            "Connections to providers that wait for their next request",
            upstream_idle.clone(),
        );
        r.register("config_reloads", "Changed fleet documents, by outcome", reloads.clone());
        r.register("config_revision", "The revision served now", revision.clone());
        r.register(
            "limit_refusals",
            "Requests and attempts refused by a limit or a budget",
            refusals.clone(),
        );
        store.register(r);
        r.register_collector(Box::new(LogLines));

        Self {
            registry,
            names: Names::default(),
            requests,
            request_seconds,
            attempts,
            attempt_seconds,
            first_token_seconds,
            tokens,
            estimated,
            body_bytes,
            in_flight,
            connections,
            upstream_origins,
            upstream_in_flight,
            upstream_idle,
            reloads,
            revision,
            store,
            refusals,
            loaded: Mutex::new(None),
        }
    }

    /// The same metrics, with those of these traces.
    #[must_use]
    pub fn with_traces(mut self, traces: &Traces) -> Self {
        self.registry.register_collector(Box::new(Spans(traces.clone())));
        self
    }

    /// All metrics as text, of the type `Self::CONTENT_TYPE`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    /// A request ended. `pool` is a configured name or empty; `outcome` is `ok`, the text of a
    /// `Code`, `provider_error` or `client_gone`; `status` is 0 where the client was given none.
    pub fn request(
        &self,
        endpoint: &'static str,
        pool: &str,
        outcome: &'static str,
        status: u16,
        seconds: f64,
    ) {
        let pool = self.names.get(pool);
        // A provider may answer with any number; only those of HTTP make a series.
        let status = if (100..600).contains(&status) { status } else { 0 };
        let labels = RequestLabels { endpoint, pool: pool.clone(), outcome, status };
        self.requests.with(&labels, |count| {
            count.inc();
        });
        self.request_seconds.with(&PoolLabels { endpoint, pool }, |time| time.observe(seconds));
    }

    /// An attempt at a target ended.
    pub fn attempt(&self, target: &str, outcome: &'static str, seconds: f64) {
        let target = self.names.get(target);
        self.attempts.with(&AttemptLabels { target: target.clone(), outcome }, |count| {
            count.inc();
        });
        self.attempt_seconds.with(&TargetLabels { target }, |time| time.observe(seconds));
    }

    /// The first content of an attempt came.
    pub fn first_token(&self, target: &str, seconds: f64) {
        let target = self.names.get(target);
        self.first_token_seconds.with(&TargetLabels { target }, |time| time.observe(seconds));
    }

    /// What an attempt used.
    pub fn tokens(&self, target: &str, usage: &Usage) {
        let target = self.names.get(target);
        let kinds = [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cached", usage.cached_tokens),
            ("reasoning", usage.reasoning_tokens),
        ];
        for (kind, tokens) in kinds.into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.tokens.with(&TokenLabels { target: target.clone(), kind }, |count| {
                count.inc_by(tokens);
            });
        }
        if usage.estimated {
            self.estimated.with(&TargetLabels { target }, |count| {
                count.inc();
            });
        }
    }

    /// Bytes of request bodies in flight.
    #[must_use]
    pub fn body_bytes(&self) -> &Gauge {
        &self.body_bytes
    }

    /// Sets how many requests are in flight; called before the metrics are rendered.
    pub fn set_in_flight(&self, requests: usize) {
        self.in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Connections of clients, counted by whoever accepts them.
    #[must_use]
    pub fn connections(&self) -> Level {
        self.connections.clone()
    }

    /// What the worker with this number holds towards providers.
    #[must_use]
    pub fn upstream(&self, worker: usize) -> UpstreamLevels {
        let level = |series: &Series<WorkerLabels, Gauge>| {
            let mut level = Level::default();
            series.with(&WorkerLabels { worker }, |gauge| level = Level(gauge.clone()));
            level
        };
        UpstreamLevels {
            origins: level(&self.upstream_origins),
            in_flight: level(&self.upstream_in_flight),
            idle: level(&self.upstream_idle),
        }
    }

    /// What the store of limits counts.
    #[must_use]
    pub fn store(&self) -> StoreMetrics {
        self.store.clone()
    }

    /// The limit or budget of this name refused.
    pub fn refused(&self, limit: &str) {
        let limit = self.names.get(limit);
        self.refusals.with(&LimitLabels { limit }, |count| {
            count.inc();
        });
    }

    /// Forgets the series of limits that left the configuration.
    pub fn retain_limits(&self, limits: &HashSet<&str>) {
        self.refusals.retain(|labels| limits.contains(labels.limit.as_str()));
    }

    /// A changed document was taken over (`ok`) or refused.
    pub fn reload(&self, outcome: &'static str) {
        self.reloads.with(&OutcomeLabels { outcome }, |count| {
            count.inc();
        });
    }

    /// This revision is served from now on.
    pub fn revision(&self, revision: i64) {
        self.revision.set(revision);
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the revision in force was taken over.
    #[must_use]
    pub fn revision_age(&self) -> Option<Duration> {
        let loaded = *self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.map(|instant| instant.elapsed())
    }

    /// Forgets the series of targets and pools that left the configuration.
    pub fn retain(&self, targets: &HashSet<&str>, pools: &HashSet<&str>) {
        let target = |name: &Name| targets.contains(name.as_str());
        let pool = |name: &Name| name.as_str().is_empty() || pools.contains(name.as_str());
        self.requests.retain(|labels| pool(&labels.pool));
        self.request_seconds.retain(|labels| pool(&labels.pool));
        self.attempts.retain(|labels| target(&labels.target));
        self.attempt_seconds.retain(|labels| target(&labels.target));
        self.first_token_seconds.retain(|labels| target(&labels.target));
        self.tokens.retain(|labels| target(&labels.target));
        self.estimated.retain(|labels| target(&labels.target));
        self.names.retain(|name| targets.contains(name) || pools.contains(name));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_those_of_the_documentation() {
        let metrics = Metrics::new();
        metrics.request("/chat/completions", "fast", "ok", 200, 0.02);
        metrics.attempt("gpt-a", "ok", 0.02);
        metrics.first_token("gpt-a", 0.01);
        metrics.tokens("gpt-a", &Usage::estimate(40, 8));
        metrics.body_bytes().set(7);
        metrics.set_in_flight(3);
        metrics.reload("refused");
        metrics.revision(2);
        let levels = metrics.upstream(1);
        let held = (levels.origins.hold(), levels.in_flight.hold(), levels.idle.hold());
        drop((metrics.connections().hold(), held.2));
        metrics.refused("per-key-rpm");
        let store = metrics.store();
        store.opened();
        store.scopes(4);
        store.forgotten(2);
        store.queued(5);
        store.dropped(1);
        store.batch("applied");
        let text = metrics.render();
        for line in [
            r#"flotilla_requests_total{endpoint="/chat/completions",pool="fast",outcome="ok",status="200"} 1"#,
            r#"flotilla_request_duration_seconds_count{endpoint="/chat/completions",pool="fast"} 1"#,
            r#"flotilla_attempts_total{target="gpt-a",outcome="ok"} 1"#,
            r#"flotilla_attempt_duration_seconds_count{target="gpt-a"} 1"#,
            r#"flotilla_first_token_seconds_bucket{le="0.01",target="gpt-a"} 1"#,
            r#"flotilla_tokens_total{target="gpt-a",kind="input"} 10"#,
            r#"flotilla_usage_estimated_total{target="gpt-a"} 1"#,
            "flotilla_body_bytes 7",
            "flotilla_requests_in_flight 3",
            r#"flotilla_config_reloads_total{outcome="refused"} 1"#,
            "flotilla_config_revision 2",
            "flotilla_log_lines_dropped_total ",
            "flotilla_log_lines_queued ",
            "flotilla_connections 0",
            r#"flotilla_upstream_origins{worker="1"} 1"#,
            r#"flotilla_upstream_requests_in_flight{worker="1"} 1"#,
            r#"flotilla_upstream_connections_idle{worker="1"} 0"#,
            r#"flotilla_limit_refusals_total{limit="per-key-rpm"} 1"#,
            "flotilla_limit_reservations 1",
            "flotilla_limit_scopes 4",
            "flotilla_limit_scopes_forgotten_total 2",
            "flotilla_ledger_queued 5",
            "flotilla_ledger_dropped_total 1",
            r#"flotilla_ledger_batches_total{outcome="applied"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(metrics.revision_age().is_some());
    }

    #[test]
    fn a_target_that_left_the_configuration_is_forgotten() {
        let metrics = Metrics::new();
        for name in ["stays", "leaves"] {
            metrics.attempt(name, "ok", 0.1);
            metrics.tokens(name, &Usage::estimate(4, 4));
            metrics.request("/embeddings", name, "ok", 200, 0.1);
        }
        metrics.request("/embeddings", "", "model_not_found", 404, 0.1);
        let left: HashSet<&str> = ["stays"].into();
        metrics.retain(&left, &left);
        let text = metrics.render();
        assert!(!text.contains("leaves"), "{text}");
        assert!(text.contains(r#"target="stays""#) && text.contains("model_not_found"), "{text}");
    }

    #[test]
    fn a_limit_that_left_the_configuration_is_forgotten() {
        let metrics = Metrics::new();
        ["stays", "leaves"].iter().for_each(|limit| metrics.refused(limit));
        metrics.retain_limits(&["stays"].into());
        let text = metrics.render();
        assert!(text.contains(r#"limit="stays""#) && !text.contains("leaves"), "{text}");
    }

    // A name of the configuration may hold anything; it stays one value of one label.
    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        metrics.attempt("a\"} 1\nevil{x=\"\\", "ok", 0.1);
        let text = metrics.render();
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
        let expected = r#"flotilla_attempts_total{target="a\"} 1\nevil{x=\"\\",outcome="ok"} 1"#;
        assert!(text.lines().any(|line| line == expected), "{text}");
    }

    // T30, the series part: what a provider answers does not make series without end.
    #[test]
    fn a_status_that_is_none_makes_no_series_of_its_own() {
        let metrics = Metrics::new();
        (600..1600).for_each(|status| metrics.request("/embeddings", "", "ok", status, 0.0));
        assert_eq!(metrics.render().matches("flotilla_requests_total{").count(), 1);
    }
}
