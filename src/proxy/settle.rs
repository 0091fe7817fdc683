//! Phase: record what happened and what was used, exactly once, whatever ends the request.
//!
//! Two guards. A `Trial` lives as long as its attempt, an `Account` as long as its request; both
//! record when they are dropped, so a client that leaves in any phase cannot skip them.

mod trial;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_http::header::HeaderMap;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::quota::Quota;
use super::request::Request;
use super::shared::Shared;
use super::spans;
use crate::domain::{AttemptId, Code, InFlight, Phase, RequestId, Usage};
use crate::policy::limit::{Counts, Row};
use crate::provider::Endpoint;
use crate::snapshot::{Key, Pool, Target};
use crate::store::{Limiter, Permits};
use crate::telemetry::RequestSpan;

use trial::Begin;
pub(super) use trial::{Admitted, Asked, Trial};

/// The outcome of a request or an attempt that went well.
pub(super) const OK: &str = "ok";
/// That of one whose client left.
const CLIENT_GONE: &str = "client_gone";

/// What the attempts of a request used; shared between its guards.
#[derive(Debug, Default)]
struct Tally {
    /// All attempts together.
    total: Cell<Usage>,
    /// What the last attempt used, where no reservation takes it to the store.
    last: RefCell<Option<(Row, Counts)>>,
}

/// The outcome of what was dropped before its end.
fn dropped(shared: &Shared) -> &'static str {
    let ending = shared.lifecycle.phase() >= Phase::Ending;
    if ending { Code::NodeDraining.as_str() } else { CLIENT_GONE }
}

/// The status that a client was given; 0 while there is none.
pub(super) type Status = Rc<Cell<u16>>;

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct Account {
    shared: Arc<Shared>,
    limiter: Limiter,
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
    tally: Rc<Tally>,
    span: Option<Box<RequestSpan>>,
    model: Arc<str>,
    /// Admissions asked for so far, refused ones included: each has an id of its own.
    admissions: u8,
    /// Whether what counts once for each request has been charged.
    admitted: bool,
    /// Held until the end of the request.
    permits: Option<Permits>,
    quota: Quota,
    _in_flight: InFlight,
}

impl Account {
    /// Opens the account of a request.
    pub(super) fn open(shared: &Arc<Shared>, limiter: &Limiter, request: &Request) -> Self {
        Self {
            shared: Arc::clone(shared),
            limiter: limiter.clone(),
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
            tally: Rc::default(),
            span: shared.traces.request(request.id, &request.headers),
            model: Arc::default(),
            admissions: 0,
            admitted: false,
            permits: None,
            quota: Quota::default(),
            _in_flight: shared.lifecycle.enter(),
        }
    }

    /// Notes who asks.
    pub(super) fn authenticated(&mut self, key: &Arc<Key>) {
        self.key = Some(Arc::clone(key));
    }

    /// Notes the model that is asked for.
    pub(super) fn asked(&mut self, model: &str) {
        self.model = model.into();
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

    /// The id of the next admission. An answer beyond 255 of them would be none to any client.
    pub(super) fn next_admission(&mut self) -> AttemptId {
        self.admissions = self.admissions.saturating_add(1);
        AttemptId { request: self.id, attempt: self.admissions }
    }

    /// Whether what counts once for each request has been charged.
    pub(super) fn was_admitted(&self) -> bool {
        self.admitted
    }

    /// Notes an admission, and holds its permits until the end of the request.
    pub(super) fn admitted(&mut self, permits: Option<Permits>) {
        self.admitted = true;
        if permits.is_some() {
            self.permits = permits;
        }
    }

    /// Notes how the limits stand.
    pub(super) fn stands(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// How the limits stand.
    pub(super) fn quota(&self) -> Quota {
        self.quota
    }

    /// Where the usage of an attempt at `target` belongs.
    pub(super) fn row(&self, target: &Target) -> Row {
        let name = |name: Option<&Arc<str>>| name.map_or_else(Arc::default, Arc::clone);
        Row {
            key: name(self.key.as_ref().map(|key| &key.name)),
            pool: name(self.pool.as_ref().map(|pool| &pool.name)),
            target: Arc::clone(&target.name),
            model: Arc::clone(&self.model),
        }
    }

    /// The tag of whoever pays.
    pub(super) fn tenant_tag(&self) -> Arc<str> {
        self.key.as_ref().map_or_else(Arc::default, |key| Arc::clone(&key.tenant.tag))
    }

    /// Begins an attempt.
    pub(super) fn attempt(
        &mut self,
        target: &Arc<Target>,
        input_bytes: u64,
        admitted: Option<Admitted>,
    ) -> Trial {
        self.attempts += 1;
        self.target = Some(Arc::clone(target));
        let row = self.row(target);
        Trial::begin(self, Begin { target, input_bytes, row, admitted })
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

impl Account {
    /// Records the request itself in the row of its last attempt, and what that one used.
    fn record(&self, outcome: &str) {
        let Some(target) = &self.target else { return };
        let is_error = !matches!(outcome, OK | CLIENT_GONE);
        let mut counts = Counts { requests: 1, errors: i64::from(is_error), ..Counts::default() };
        let record = |row, counts| self.limiter.record(self.tenant_tag(), row, counts);
        match self.tally.last.take() {
            Some((row, used)) if Arc::ptr_eq(&row.target, &target.name) => {
                counts.add(&used);
                record(row, counts);
            }
            Some((row, used)) => {
                record(row, used);
                record(self.row(target), counts);
            }
            None => record(self.row(target), counts),
        }
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
        let usage = self.tally.total.get();
        self.record(outcome);
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
    use super::super::tap::Tap;
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
        Account::open(shared, &Limiter::new(&shared.store), &request)
    }

    #[test]
    fn what_is_dropped_is_the_clients_doing_until_the_node_ends() {
        let (shared, pool) = (shared(), testing::pool("p", &[&["t"]]));
        for phase in [Phase::Serving, Phase::Ending] {
            shared.lifecycle.advance(phase);
            let mut account = account(&shared);
            drop(account.attempt(&pool.tiers[0][0], 4, None));
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
            let mut trial = account.attempt(&testing::pool("p", &[&["t"]]).tiers[0][0], 40, None);
            let unread = || unreachable!("no stream");
            let mut tap = Tap::new(&mut HeaderMap::new(), false, unread);
            tap.feed(bytes::Bytes::from_static(&[b'x'; 20]));
            trial.tap = Some(tap);
            drop(trial);
            let used = account.tally.total.get();
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
