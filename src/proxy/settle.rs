//! Phase: record what happened and what was used, exactly once, whatever ends the request.
//!
//! Two guards. A `Trial` lives as long as its attempt, an `Account` as long as its request; both
//! record when they are dropped, so a client that leaves in any phase cannot skip them.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_http::header::HeaderMap;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::request::Request;
use super::shared::Shared;
use super::spans;
use super::tap::Tap;
use crate::domain::{Code, Headers, InFlight, Phase, RequestId, Usage};
use crate::provider::Endpoint;
use crate::snapshot::{Key, Pool, Target};
use crate::telemetry::{AttemptSpan, RequestSpan};

/// The outcome of a request or an attempt that went well.
pub(super) const OK: &str = "ok";

/// One attempt at one target, from before it is sent until its answer has passed by.
#[derive(Debug)]
pub(super) struct Trial {
    shared: Arc<Shared>,
    id: RequestId,
    endpoint: Endpoint,
    pub(super) target: Arc<Target>,
    started: Instant,
    input_bytes: u64,
    /// What the answer brought so far.
    pub(super) tap: Option<Tap>,
    outcome: Option<&'static str>,
    charged: bool,
    totals: Totals,
    span: Option<Box<AttemptSpan>>,
}

/// What all attempts of a request used together; shared between its guards.
type Totals = Rc<Cell<Usage>>;

impl Trial {
    /// Records how the attempt ended. `charged` says whether the provider may have worked for it
    /// although it gave no figures, so that an estimate must stand for them.
    pub(super) fn end(&mut self, outcome: &'static str, charged: bool) {
        self.outcome = Some(outcome);
        self.charged = charged;
    }

    /// Tells the provider which trace this attempt belongs to.
    pub(super) fn pass_trace(&self, caller: &HeaderMap, to: &mut Headers) {
        self.shared.traces.pass_on(self.span.as_deref(), self.id, caller, to);
    }

    /// Notes the status of the provider's answer.
    pub(super) fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.answered(status);
        }
    }

    /// Records the time from the attempt's start to its first content.
    pub(super) fn first_content(&mut self) {
        let elapsed = self.started.elapsed();
        self.shared.metrics.first_token(&self.target.name, elapsed.as_secs_f64());
        if let Some(span) = &mut self.span {
            span.first_content(elapsed);
        }
    }

    fn usage(&self) -> Usage {
        let seen = self.tap.as_ref();
        if let Some(usage) = seen.and_then(Tap::usage) {
            return usage;
        }
        if !self.charged {
            return Usage::default();
        }
        let input = if self.endpoint.asks_with_text() { self.input_bytes } else { 0 };
        let output = seen.filter(|_| self.endpoint.answers_with_text());
        Usage::estimate(input, output.map_or(0, Tap::text_bytes))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let usage = self.usage();
        let metrics = &self.shared.metrics;
        let outcome = self.outcome.unwrap_or_else(|| dropped(&self.shared));
        metrics.attempt(&self.target.name, outcome, self.started.elapsed().as_secs_f64());
        metrics.tokens(&self.target.name, &usage);
        if outcome != OK {
            // Each of them, because a failover that worked shows nowhere else.
            tracing::info!(
                target: "flotilla::attempt",
                request_id = %self.id,
                target = &*self.target.name,
                outcome,
                duration_ms = milliseconds(self.started.elapsed()),
                "attempt failed"
            );
        }
        let before = self.totals.get();
        self.totals.set(Usage {
            input_tokens: before.input_tokens.saturating_add(usage.input_tokens),
            output_tokens: before.output_tokens.saturating_add(usage.output_tokens),
            cached_tokens: before.cached_tokens.saturating_add(usage.cached_tokens),
            reasoning_tokens: before.reasoning_tokens.saturating_add(usage.reasoning_tokens),
            estimated: before.estimated || usage.estimated,
        });
        if let Some(span) = self.span.take() {
            spans::end_attempt(*span, self.endpoint, &self.target, outcome, usage);
        }
    }
}

/// The outcome of what was dropped before its end.
fn dropped(shared: &Shared) -> &'static str {
    let ending = shared.lifecycle.phase() >= Phase::Ending;
    if ending { Code::NodeDraining.as_str() } else { "client_gone" }
}

/// The status that a client was given; 0 while there is none.
pub(super) type Status = Rc<Cell<u16>>;

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct Account {
    shared: Arc<Shared>,
    id: RequestId,
    endpoint: Endpoint,
    client_ip: IpAddr,
    client_request_id: Option<String>,
    received: Instant,
    key: Option<Arc<Key>>,
    pool: Option<Arc<Pool>>,
    target: Option<Arc<Target>>,
    attempts: u32,
    status: Status,
    outcome: Option<&'static str>,
    totals: Totals,
    span: Option<Box<RequestSpan>>,
    _in_flight: InFlight,
}

impl Account {
    /// Opens the account of a request.
    pub(super) fn open(shared: &Arc<Shared>, request: &Request) -> Self {
        Self {
            shared: Arc::clone(shared),
            id: request.id,
            endpoint: request.endpoint,
            client_ip: request.client_ip,
            client_request_id: client_request_id(&request.headers),
            received: request.received,
            key: None,
            pool: None,
            target: None,
            attempts: 0,
            status: Status::default(),
            outcome: None,
            totals: Totals::default(),
            span: shared.traces.request(request.id, &request.headers),
            _in_flight: shared.lifecycle.enter(),
        }
    }

    /// Notes who asks.
    pub(super) fn authenticated(&mut self, key: &Arc<Key>) {
        self.key = Some(Arc::clone(key));
    }

    /// Notes the model that is asked for.
    pub(super) fn asked(&mut self, model: &str) {
        if let Some(span) = &mut self.span {
            span.asked(model);
        }
    }

    /// Notes where the request goes. From here on it counts for the retry budget: what strangers
    /// send must not earn retries.
    pub(super) fn routed(&mut self, pool: &Arc<Pool>) {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.pool = Some(Arc::clone(pool));
    }

    /// Begins an attempt.
    pub(super) fn attempt(&mut self, target: &Arc<Target>, input_bytes: u64) -> Trial {
        self.attempts += 1;
        self.target = Some(Arc::clone(target));
        Trial {
            shared: Arc::clone(&self.shared),
            id: self.id,
            endpoint: self.endpoint,
            target: Arc::clone(target),
            started: Instant::now(),
            input_bytes,
            tap: None,
            outcome: None,
            charged: true,
            totals: Totals::clone(&self.totals),
            span: self.span.as_ref().map(|span| span.attempt(self.attempts)),
        }
    }

    /// Attempts made so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The target asked last.
    pub(super) fn target(&self) -> Option<&Arc<Target>> {
        self.target.as_ref()
    }

    /// Resolves once the node ends and this request must end with it.
    pub(super) fn ending(&self) -> WaitForCancellationFutureOwned {
        self.shared.lifecycle.ending()
    }

    /// Notes the status that the client is given.
    pub(super) fn answered(&mut self, status: u16) {
        self.status.set(status);
    }

    /// Where the status is noted, for whoever answers while somebody else holds the account.
    pub(super) fn status(&self) -> Status {
        Status::clone(&self.status)
    }

    /// Notes how the request ended.
    pub(super) fn end(&mut self, outcome: &'static str) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let elapsed = self.received.elapsed();
        let pool = self.pool.as_ref().map_or("", |pool| &*pool.name);
        let endpoint = self.endpoint.path();
        let outcome = self.outcome.unwrap_or_else(|| dropped(&self.shared));
        let status = self.status.get();
        self.shared.metrics.request(endpoint, pool, outcome, status, elapsed.as_secs_f64());
        let usage = self.totals.get();
        tracing::info!(
            target: "flotilla::request",
            request_id = %self.id,
            client_request_id = self.client_request_id.as_deref(),
            client_ip = %self.client_ip,
            endpoint,
            tenant = self.key.as_ref().map(|key| &*key.tenant.name),
            key = self.key.as_ref().map(|key| &*key.name),
            pool,
            target = self.target.as_ref().map(|target| &*target.name),
            attempts = self.attempts,
            status,
            outcome,
            duration_ms = milliseconds(elapsed),
            input_tokens = usage.input_tokens,
            output_tokens = usage.output_tokens,
            estimated = usage.estimated,
            "request"
        );
        if let Some(span) = self.span.take() {
            let names = spans::Names {
                tenant: self.key.as_ref().map(|key| &key.tenant.name),
                pool: self.pool.as_ref().map(|pool| &pool.name),
                target: self.target.as_ref().map(|target| &target.name),
            };
            let ended = spans::Ended { attempts: self.attempts, status, outcome, usage };
            spans::end_request(*span, self.endpoint, names, ended);
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The client's own id for the request, where it is short and visible ASCII.
fn client_request_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-request-id")?.to_str().ok()?;
    (value.len() <= 128 && value.bytes().all(|byte| byte.is_ascii_graphic()))
        .then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, testing};
    use super::*;
    use crate::domain::Lifecycle;
    use crate::telemetry::Metrics;

    fn shared() -> Arc<Shared> {
        let config = Config { body_limit: 1, body_budget: 1, body_stall: Duration::ZERO };
        let snapshot = Arc::new(testing::snapshot_with_keys(&[]));
        let life = Arc::new(Lifecycle::new());
        Arc::new(Shared::new(config, snapshot, Metrics::new(), life, "node".into()))
    }

    fn account(shared: &Arc<Shared>) -> Account {
        account_at(shared, Endpoint::ChatCompletions)
    }

    fn account_at(shared: &Arc<Shared>, endpoint: Endpoint) -> Account {
        let request = Request {
            id: RequestId::from_random([7; 16]),
            endpoint,
            headers: HeaderMap::new(),
            query: String::new(),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            received: Instant::now(),
        };
        Account::open(shared, &request)
    }

    #[test]
    fn what_is_dropped_is_the_clients_doing_until_the_node_ends() {
        let (shared, pool) = (shared(), testing::pool("p", &[&["t"]]));
        for phase in [Phase::Serving, Phase::Ending] {
            shared.lifecycle.advance(phase);
            let mut account = account(&shared);
            drop(account.attempt(&pool.tiers[0][0], 4));
        }
        let text = shared.metrics.render();
        for outcome in ["client_gone", "node_draining"] {
            let attempt = format!("attempts_total{{target=\"t\",outcome=\"{outcome}\"}} 1");
            let request = format!("outcome=\"{outcome}\",status=\"0\"}} 1");
            assert!(text.contains(&attempt) && text.contains(&request), "{outcome} in {text}");
        }
    }

    #[test]
    fn only_text_is_estimated_in_tokens() {
        for (endpoint, tokens) in [
            (Endpoint::ChatCompletions, (10, 5)),
            (Endpoint::Embeddings, (10, 0)),
            (Endpoint::AudioTranscriptions, (0, 5)),
            (Endpoint::ImagesVariations, (0, 0)),
        ] {
            let mut account = account_at(&shared(), endpoint);
            let mut trial = account.attempt(&testing::pool("p", &[&["t"]]).tiers[0][0], 40);
            let unread = || unreachable!("no stream");
            let mut tap = Tap::new(&mut HeaderMap::new(), false, unread);
            tap.feed(bytes::Bytes::from_static(&[b'x'; 20]));
            trial.tap = Some(tap);
            drop(trial);
            let used = account.totals.get();
            assert_eq!((used.input_tokens, used.output_tokens), tokens, "{endpoint:?}");
            assert!(used.estimated);
        }
    }

    #[test]
    fn only_requests_that_reach_a_pool_earn_retries() {
        let shared = shared();
        let mut account = account(&shared);
        assert_eq!(shared.requests.load(Ordering::Relaxed), 0);
        account.routed(&testing::pool("p", &[&["t"]]));
        assert_eq!(shared.requests.load(Ordering::Relaxed), 1);
    }
}
