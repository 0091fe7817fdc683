//! What the data listener asks of the proxy: a trait, so that the listener can be tested alone.

use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use crate::domain::{Fault, Lifecycle};
use crate::proxy::{self, Reply, Request, Worker};
use crate::telemetry::Metrics;

/// Serves the requests of one worker thread.
pub trait Backend: 'static {
    /// Where the node stands in its life.
    fn lifecycle(&self) -> &Arc<Lifecycle>;

    /// Counters and histograms.
    fn metrics(&self) -> &Metrics;

    /// The node's id, as answers carry it.
    fn node(&self) -> &str;

    /// True while nobody needs a key, because none is configured.
    fn is_open(&self) -> bool;

    /// Whether there is a provider that could be asked.
    fn can_serve(&self) -> bool;

    /// The models that the bearer of the request's credential may ask for.
    ///
    /// # Errors
    /// `invalid_key`, as for any other request.
    fn models(&self, request: &Request) -> Result<Vec<String>, Fault>;

    /// Serves one request.
    ///
    /// # Cancellation
    /// The future is dropped when the client leaves; nothing after one of its awaits may be needed.
    fn serve(worker: &Rc<Self>, request: Request, body: RequestBody)
    -> impl Future<Output = Reply>;
}

impl Backend for Worker {
    fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.shared.lifecycle
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    fn node(&self) -> &str {
        &self.shared.node
    }

    fn is_open(&self) -> bool {
        !self.shared.snapshot.load().has_keys()
    }

    fn can_serve(&self) -> bool {
        self.shared.snapshot.load().can_serve()
    }

    fn models(&self, request: &Request) -> Result<Vec<String>, Fault> {
        proxy::models(self, request)
    }

    fn serve(
        worker: &Rc<Self>,
        request: Request,
        body: RequestBody,
    ) -> impl Future<Output = Reply> {
        proxy::serve(worker, request, body)
    }
}
