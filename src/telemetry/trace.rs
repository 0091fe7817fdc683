//! Traces: one span for a request, one for each of its attempts, sent to a collector as OTLP.
//!
//! Whether a request is traced is decided from its head; one that is not costs a branch, and
//! allocates nothing. Spans are made through `tracing` and `tracing-opentelemetry`, but on a
//! dispatcher that belongs to the node: they never pass the log, the log never passes them, and
//! where no collector is configured there is none of it. A span is a value that the guards of a
//! request hold, so whatever ends the request ends its span.

mod config;
mod context;
mod export;
mod sample;
mod span;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_http::header::HeaderMap;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler as Always, SdkTracerProvider, SpanLimits,
};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use self::context::Parent;
use self::export::{Counts, Export};
use self::sample::Sampler;
use crate::domain::{Headers, RequestId};

pub use self::config::{SamplerConfig, TraceConfig};
pub use self::export::{TraceAnswer, TraceSendError, TraceSender};
pub use self::span::{AttemptFacts, AttemptSpan, RequestFacts, RequestSpan};

/// What our spans are marked with, so that nothing else becomes one.
const TARGET: &str = "flotilla::span";

/// The traces of a node, or none. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Live>>);

struct Live {
    sampler: Sampler,
    /// What spans are made on; nothing else ever is.
    dispatch: Dispatch,
    provider: SdkTracerProvider,
    counts: Arc<Counts>,
}

/// How many spans were delivered, failed to be, or found the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceCounts {
    /// The collector took them.
    pub exported: u64,
    /// It did not, after all retries.
    pub failed: u64,
    /// They were never sent.
    pub dropped: u64,
    /// They wait, or are on their way.
    pub waiting: usize,
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be set up: {0}")]
pub struct TraceError(#[from] ExporterBuildError);

impl Traces {
    /// No traces.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Starts the exporter, which gives its batches to `sender`.
    ///
    /// # Errors
    /// The exporter cannot be built.
    pub fn start(config: &TraceConfig, sender: Arc<dyn TraceSender>) -> Result<Self, TraceError> {
        let counts = Arc::new(Counts::default());
        let export = Export::start(config, sender, Arc::clone(&counts))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(export)
            .with_resource(export::resource(config))
            .with_id_generator(Ids::default())
            .with_span_limits(SpanLimits::default())
            // It was decided before.
            .with_sampler(Always::AlwaysOn)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("flotilla"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        // Without a filter every event of the log would be asked about here too.
        let only = Targets::new().with_target(TARGET, LevelFilter::INFO);
        let dispatch = Dispatch::new(Registry::default().with(only).with(layer));
        let sampler = Sampler::new(config.sampler);
        Ok(Self(Some(Arc::new(Live { sampler, dispatch, provider, counts }))))
    }

    /// The span of a request with this head, if it is traced.
    #[inline]
    #[must_use]
    pub fn request(&self, id: RequestId, headers: &HeaderMap) -> Option<Box<RequestSpan>> {
        let live = self.0.as_deref()?;
        let parent = live.sampler.decide(id, headers)?;
        Some(live.begin(id, parent, headers))
    }

    /// Tells a provider which trace its work belongs to: `caller` is what the client said, `to` what
    /// the provider is told. Without traces of its own a node passes on what it got.
    pub fn pass_on(
        &self,
        span: Option<&AttemptSpan>,
        id: RequestId,
        caller: &HeaderMap,
        to: &mut Headers,
    ) {
        let parent = match (span, Parent::read(caller)) {
            (Some(span), _) => Some(span.as_parent()),
            (None, Some(parent)) if self.0.is_none() => Some(parent),
            (None, Some(parent)) => Some(Parent { sampled: false, ..parent }),
            (None, None) if self.0.is_none() => None,
            // Nobody is to begin a trace of his own for a request that is not sampled.
            (None, None) => Some(Parent::unsampled(id)),
        };
        if let Some(parent) = parent {
            parent.write(caller, to);
        }
    }

    /// What became of all spans so far.
    #[must_use]
    pub fn counts(&self) -> Option<TraceCounts> {
        let counts = &self.0.as_deref()?.counts;
        Some(TraceCounts {
            exported: counts.exported.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            waiting: counts.waiting.load(Ordering::Relaxed),
        })
    }

    /// Sends what waits and ends the exporter; gives up after `limit`. Blocks, so it must not be
    /// called on a runtime's thread.
    pub fn shutdown(&self, limit: Duration) {
        let Some(live) = self.0.as_deref() else { return };
        let patience = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        live.counts.patience.store(patience, Ordering::Relaxed);
        if live.provider.shutdown_with_timeout(limit).is_err() {
            tracing::warn!("the last spans did not reach the trace collector in time");
        }
    }
}

impl Live {
    fn begin(
        &self,
        id: RequestId,
        parent: Option<Parent>,
        headers: &HeaderMap,
    ) -> Box<RequestSpan> {
        let parent = parent.map(|parent| parent.context(headers));
        ROOT.set(Some(TraceId::from_bytes(id.to_bytes())));
        let span = dispatcher::with_default(&self.dispatch, || RequestSpan::start(id, parent));
        ROOT.set(None);
        Box::new(span)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

thread_local! {
    /// The id for the trace that begins right now on this thread: the request's own, so that a
    /// trace can be found by what an answer carries.
    static ROOT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        ROOT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
