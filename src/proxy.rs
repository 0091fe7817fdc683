//! The life of a request, phase by phase, one file each: `authenticate`, `receive`, `route`,
//! `select`, `attempt`, `relay`, `settle`.
//!
//! The order is this file. Every phase may end the request with a fault in the client's own
//! protocol; whatever ends it, even a client that leaves, the guards of `settle` record it.

mod attempt;
mod authenticate;
mod heartbeat;
mod receive;
mod relay;
mod request;
mod route;
mod select;
mod settle;
mod shared;
mod spans;
mod tap;
#[cfg(test)]
mod testing;

use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use actix_http::error::PayloadError;
use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{sleep, timeout};

use self::attempt::{Committed, Exchange, Failed};
use self::receive::Received;
use self::select::Plan;
use self::settle::Account;
use crate::domain::{Code, Fault, Phase};
use crate::policy::retry::{self, Situation, Verdict};
use crate::provider::Envelope;

pub use request::{Aborted, Body, Pieces, Reply, Request};
pub use shared::{Config, Shared, Worker};

/// Bodies above this are read on a thread of their own, so that a worker's other requests do not
/// wait for the milliseconds that it takes.
const LARGE_BODY: usize = 1024 * 1024;

/// Serves one request from its head to its reply; the body of the reply carries its life on.
///
/// # Cancellation
/// Dropping the future, or the body of its reply, ends the upstream call at once; what was used is
/// recorded all the same.
pub async fn serve<S>(worker: &Rc<Worker>, request: Request, body: S) -> Reply
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let mut account = Account::open(&worker.shared, &request);
    let exchange = match prepare(worker, request, body, &mut account).await {
        Ok(exchange) => exchange,
        Err(fault) => return refuse(fault.into(), account),
    };
    let clocks = exchange.clocks();
    let heartbeat = exchange.pool.heartbeat.filter(|_| exchange.envelope.stream);
    let Some(period) = heartbeat else {
        let result = Box::pin(attempts(&exchange, &mut account)).await;
        return conclude(result, account, clocks);
    };
    let mut attempts: heartbeat::Attempts = Box::pin(async move {
        let result = attempts(&exchange, &mut account).await;
        (result, account)
    });
    match timeout(period, &mut attempts).await {
        Ok((result, account)) => conclude(result, account, clocks),
        Err(_) => heartbeat::reply(attempts, period, clocks),
    }
}

/// The models that the bearer of this request's credential may ask for, sorted.
///
/// # Errors
/// `invalid_key`, as for any other request.
pub fn models(worker: &Worker, request: &Request) -> Result<Vec<String>, Fault> {
    let snapshot = worker.shared.snapshot.load();
    let key = authenticate::authenticate(&snapshot, &request.headers, &request.query, unix_now())?;
    Ok(route::models(&snapshot, &key))
}

/// From the head of a request to all that its attempts need.
async fn prepare<S>(
    worker: &Rc<Worker>,
    request: Request,
    body: S,
    account: &mut Account,
) -> Result<Exchange, Fault>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let shared = &worker.shared;
    if shared.lifecycle.phase() >= Phase::Ending {
        return Err(draining());
    }
    let snapshot = shared.snapshot.load_full();
    let key = authenticate::authenticate(&snapshot, &request.headers, &request.query, unix_now())?;
    account.authenticated(&key);
    let Received { bytes, hold } =
        receive::receive(shared.config, &shared.bodies, &request.headers, body).await?;
    let envelope = read_envelope(&request, &bytes).await?;
    account.asked(&envelope.model);
    let pool = route::route(&snapshot, &key, &envelope.model)?;
    account.routed(&pool);
    let deadline = request.received + pool.timeouts.total;
    Ok(Exchange {
        worker: Rc::clone(worker),
        endpoint: request.endpoint,
        headers: request.headers,
        key,
        pool,
        envelope,
        body: bytes,
        _hold: hold,
        deadline,
    })
}

async fn read_envelope(request: &Request, body: &Bytes) -> Result<Envelope, Fault> {
    let content_type = request.headers.get(actix_http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    if body.len() <= LARGE_BODY {
        return Envelope::read(request.endpoint, content_type, body);
    }
    let (endpoint, content_type, body) =
        (request.endpoint, content_type.map(str::to_owned), body.clone());
    let read = move || Envelope::read(endpoint, content_type.as_deref(), &body);
    let fault = |_| Fault::new(Code::InvalidRequest, "the request body could not be read");
    tokio::task::spawn_blocking(read).await.map_err(fault)?
}

/// Attempts, one after another, until one commits or none may follow; or until the node ends.
async fn attempts(exchange: &Exchange, account: &mut Account) -> Result<Committed, Failed> {
    let ending = account.ending();
    tokio::select! {
        biased;
        result = try_targets(exchange, account) => result,
        () = ending => Err(draining().into()),
    }
}

async fn try_targets(exchange: &Exchange, account: &mut Account) -> Result<Committed, Failed> {
    let worker = &exchange.worker;
    let mut plan = Plan::new(&exchange.pool, &exchange.key, &exchange.envelope.model)?;
    loop {
        let Some(target) = plan.next(worker.random()) else {
            let message = "no target is left to try";
            return Err(Fault::new(Code::NoTarget, message).into());
        };
        let failed = match exchange.attempt(&target, account).await {
            Ok(committed) => return Ok(committed),
            Err(failed) => failed,
        };
        let Some(failure) = failed.failure else { return Err(failed) };
        plan.failed(&target, failure);
        let now = Instant::now();
        let situation = Situation {
            failure,
            retry_after: failed.retry_after,
            attempts: account.attempts(),
            cap: exchange.pool.attempts,
            untried: plan.has_untried(),
            left: exchange.deadline.saturating_duration_since(now),
        };
        match retry::decide(situation, worker.random()) {
            Verdict::Another => {}
            Verdict::Again(wait) if may_repeat(worker, now) => sleep(wait).await,
            Verdict::Again(_) | Verdict::Stop(_) => return Err(failed),
        }
    }
}

/// Takes one repeat attempt from the node's retry budget.
fn may_repeat(worker: &Worker, now: Instant) -> bool {
    let shared = &worker.shared;
    let requests = shared.requests.load(std::sync::atomic::Ordering::Relaxed);
    shared.retries.lock().unwrap_or_else(PoisonError::into_inner).take(requests, now)
}

/// The reply of a request whose attempts are over.
fn conclude(
    result: Result<Committed, Failed>,
    mut account: Account,
    clocks: relay::Clocks,
) -> Reply {
    let mut committed = match result {
        Ok(committed) => committed,
        Err(failed) => return refuse(failed, account),
    };
    account.answered(committed.status.as_u16());
    let mut headers = std::mem::take(&mut committed.headers);
    describe(&mut headers, &account);
    Reply { status: committed.status, headers, body: relay::relay(committed, account, clocks) }
}

/// The reply of a request that failed: the provider's own answer where there is one to pass on.
fn refuse(failed: Failed, mut account: Account) -> Reply {
    let Failed { fault, answer, .. } = failed;
    let mut reply = match answer {
        Some(reply) => {
            account.end("provider_error");
            reply
        }
        None => {
            account.end(fault.code.as_str());
            Reply::fault(&fault)
        }
    };
    account.answered(reply.status.as_u16());
    describe(&mut reply.headers, &account);
    reply
}

/// Says which target answered, and after how many attempts.
fn describe(headers: &mut HeaderMap, account: &Account) {
    let Some(target) = account.target() else { return };
    if let Ok(name) = HeaderValue::from_str(&target.name) {
        headers.insert(HeaderName::from_static("x-flotilla-target"), name);
    }
    headers.insert(
        HeaderName::from_static("x-flotilla-attempts"),
        HeaderValue::from(u64::from(account.attempts())),
    );
}

fn draining() -> Fault {
    Fault::new(Code::NodeDraining, "this node is shutting down; retry and another one will serve")
        .retry_after(std::time::Duration::from_secs(1))
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
