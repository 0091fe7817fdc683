//! Finished spans on their way to the collector: a bounded queue, a thread, a bounded end.
//!
//! The SDK's batch processor and its encoder do the work on a thread of their own. Around them stands
//! what they lack: an exact count of what waits and what was lost, one line in the log when the
//! collector fails and one when it is back, and an end that waits only as long as it was told to.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use super::config::TraceConfig;

/// What the collector said to one batch.
#[derive(Clone, Debug)]
pub struct TraceAnswer {
    /// The status.
    pub status: u16,
    /// When it wants to be asked again.
    pub retry_after: Option<String>,
    /// The beginning of the body.
    pub body: Bytes,
}

/// Why a batch got no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TraceSendError(pub String);

/// Carries batches to the collector. It is given from above, because this module knows no HTTP.
pub trait TraceSender: fmt::Debug + Send + Sync {
    /// Posts one batch, as OTLP in protobuf, and waits for the answer, no longer than the
    /// configured time-out. It is called on a thread that has nothing else to do.
    ///
    /// # Errors
    /// There is no answer.
    fn send(&self, batch: Bytes) -> Result<TraceAnswer, TraceSendError>;
}

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) waiting: AtomicUsize,
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// The longest that the end may take, in milliseconds; nothing until it is asked for.
    pub(super) patience: AtomicU64,
}

/// The processor of a provider: the SDK's, with an end and a count of its own.
#[derive(Debug)]
pub(super) struct Export {
    batches: BatchSpanProcessor,
    counts: Arc<Counts>,
    queue: usize,
}

impl Export {
    /// Starts the thread that sends.
    pub(super) fn start(
        config: &TraceConfig,
        sender: Arc<dyn TraceSender>,
        counts: Arc<Counts>,
    ) -> Result<Self, ExporterBuildError> {
        // Whatever is not set here would be read from the environment.
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Post { sender, failing: AtomicBool::new(false) })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint.to_string())
            .with_timeout(config.timeout)
            .build()?;
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(config.queue)
            .with_max_export_batch_size(config.batch)
            .with_scheduled_delay(config.delay)
            .build();
        let exporter = Counting { exporter, counts: Arc::clone(&counts) };
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        Ok(Self { batches, counts, queue: config.queue })
    }
}

impl SpanProcessor for Export {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let counts = &*self.counts;
        if counts.waiting.fetch_add(1, Ordering::Relaxed) < self.queue {
            self.batches.on_end(span);
        } else {
            counts.waiting.fetch_sub(1, Ordering::Relaxed);
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    /// Waits no longer than it was asked to: a provider that is merely dropped, on whatever thread
    /// that happens, does not hold it up.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let patience = Duration::from_millis(self.counts.patience.load(Ordering::Relaxed));
        self.batches.shutdown_with_timeout(timeout.min(patience))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// The exporter, counting what it delivers and what it fails to.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let counts = &*self.counts;
        counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        let count = if result.is_ok() { &counts.exported } else { &counts.failed };
        count.fetch_add(spans as u64, Ordering::Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The sender as the exporter wants it. Of the exporter's request only the body is used: where it
/// goes and with which headers is the sender's to know.
#[derive(Debug)]
struct Post {
    sender: Arc<dyn TraceSender>,
    failing: AtomicBool,
}

impl Post {
    fn post(&self, batch: Bytes) -> Result<Response<Bytes>, HttpError> {
        let answer = self.sender.send(batch).inspect_err(|error| self.failed(&error.0))?;
        if (200..300).contains(&answer.status) {
            if self.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("the trace collector takes spans again");
            }
        } else {
            self.failed(&format!("it answered with status {}", answer.status));
        }
        let response = Response::builder().status(answer.status);
        let response = match answer.retry_after {
            Some(wait) => response.header("retry-after", wait),
            None => response,
        };
        Ok(response.body(answer.body)?)
    }

    fn failed(&self, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "the trace collector takes no spans; requests are not affected");
        }
    }
}

impl HttpClient for Post {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(ready(self.post(request.into_body())))
    }
}

/// What the traces say of this process.
pub(super) fn resource(config: &TraceConfig) -> Resource {
    let attributes =
        config.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    // The default one would read the environment.
    Resource::builder_empty().with_attributes(attributes).build()
}
