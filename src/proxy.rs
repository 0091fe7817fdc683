//! The life of a request, phase by phase, one file each: `authenticate`, `receive`, `route`,
//! `select`, `admit`, `attempt`, `relay`, `settle`.
//!
//! The order is this file. Every phase may end the request with a fault in the client's own
//! protocol; whatever ends it, even a client that leaves, the guards of `settle` record it.

mod admit;
mod attempt;
mod authenticate;
mod demand;
mod heartbeat;
mod quota;
mod receive;
mod relay;
mod request;
mod route;
mod select;
mod settle;
mod shared;
mod spans;
mod standing;
mod tap;
#[cfg(test)]
mod testing;

use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use actix_http::error::PayloadError;
use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::Semaphore;
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
pub use standing::{Applying, Known, applying};

/// Bodies above this are read on a thread of their own, so that a worker's other requests do not
/// wait for the milliseconds that it takes.
const LARGE_BODY: usize = 1024 * 1024;

/// Names the client's own user where its body cannot.
const USER_HEADER: &str = "x-flotilla-user";
/// As for the user that a body names.
const LONGEST_USER: usize = 512;

/// Serves one request from its head to its reply; the body of the reply carries its life on.
///
/// # Cancellation
/// Dropping the future, or the body of its reply, ends the upstream call at once; what was used is
/// recorded all the same.
pub async fn serve<S>(worker: &Rc<Worker>, request: Request, body: S) -> Reply
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let mut account = Account::open(&worker.shared, &worker.limiter, &request);
    let ending = account.ending();
    let prepared = tokio::select! {
        biased;
        prepared = prepare(worker, request, body, &mut account) => prepared,
        // An upload may take longer than the end of the node waits.
        () = ending => Err(draining()),
    };
    let exchange = match prepared {
        Ok(exchange) => exchange,
        Err(fault) => return refuse(fault.into(), account),
    };
    let clocks = exchange.clocks();
    let heartbeat = exchange.pool.heartbeat.filter(|_| exchange.envelope.stream);
    let Some(period) = heartbeat else {
        let result = Box::pin(attempts(&exchange, &mut account)).await;
        return conclude(result, account, clocks);
    };
    let status = account.status();
    let mut attempts: heartbeat::Attempts = Box::pin(async move {
        let result = attempts(&exchange, &mut account).await;
        (result, account)
    });
    match timeout(period, &mut attempts).await {
        Ok((result, account)) => conclude(result, account, clocks),
        Err(_) => heartbeat::reply(attempts, &status, period, clocks),
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
    let received = receive::receive(shared.config, &shared.bodies, &request.headers, body).await?;
    let (envelope, Received { bytes, hold }) =
        read_envelope(&request, received, &shared.reading).await?;
    account.asked(&envelope.model);
    let user = user(&envelope, &request.headers)?;
    let pool = route::route(&snapshot, &key, &envelope.model)?;
    account.routed(&pool);
    let deadline = request.received + pool.timeouts.total;
    if Instant::now() >= deadline {
        // No provider can be asked in no time, and none is to blame.
        let message = "the request took longer to arrive than the total time-out of its pool";
        return Err(Fault::new(Code::RequestTimeout, message));
    }
    Ok(Exchange {
        worker: Rc::clone(worker),
        endpoint: request.endpoint,
        headers: request.headers,
        key,
        pool,
        envelope,
        body: bytes,
        user,
        client_ip: request.client_ip,
        _hold: hold,
        deadline,
    })
}

async fn read_envelope(
    request: &Request,
    received: Received,
    reading: &Arc<Semaphore>,
) -> Result<(Envelope, Received), Fault> {
    let content_type = request.headers.get(actix_http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let endpoint = request.endpoint;
    if received.bytes.len() <= LARGE_BODY {
        let envelope = Envelope::read(endpoint, content_type, &received.bytes)?;
        return Ok((envelope, received));
    }
    let content_type = content_type.map(str::to_owned);
    let fault = || Fault::new(Code::InvalidRequest, "the request body could not be read");
    // Those before this one each take milliseconds, and none waits for anything.
    let turn = Arc::clone(reading).acquire_owned().await.map_err(|_| fault())?;
    // The thread has the body whole, its charge included: it goes on where the client has left.
    let read = move || {
        let _turn = turn;
        let envelope = Envelope::read(endpoint, content_type.as_deref(), &received.bytes)?;
        Ok((envelope, received))
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| fault())?
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
    // What the client is told if nothing better follows: the failure of the last attempt, or the
    // first refusal of a limit.
    let (mut last, mut held_up) = (None::<Failed>, None::<Fault>);
    loop {
        let Some(target) = plan.next(worker.random(), Instant::now()) else {
            let none = || Fault::new(Code::NoTarget, "no target is left to try");
            return Err(last.unwrap_or_else(|| held_up.unwrap_or_else(none).into()));
        };
        let admitted = match exchange.admit(&target, account).await {
            Ok(admitted) => admitted,
            Err(refused) if refused.elsewhere && plan.has_untried() => {
                held_up.get_or_insert(refused.fault);
                continue;
            }
            // A provider's own failure says more than that its stand-in may not be asked.
            Err(refused) => {
                let fault = held_up.unwrap_or(refused.fault);
                return Err(last.unwrap_or_else(|| fault.into()));
            }
        };
        let failed = match exchange.attempt(&target, admitted, account).await {
            Ok(committed) => return Ok(committed),
            Err(failed) => failed,
        };
        // What the next attempt may need is given back before it is asked for.
        worker.limiter.flushed(&exchange.key.tenant.tag).await;
        let Some(failure) = failed.failure else { return Err(failed) };
        let now = Instant::now();
        plan.failed(&target, failure, failed.retry_after, now);
        let situation = Situation {
            failure,
            again: plan.again(now),
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
        last = Some(failed);
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
    account.end(failed.outcome());
    let mut reply = failed.answer.unwrap_or_else(|| Reply::fault(&failed.fault));
    account.answered(reply.status.as_u16());
    describe(&mut reply.headers, &account);
    reply
}

/// Says how the limits stand, which target answered, and after how many attempts.
fn describe(headers: &mut HeaderMap, account: &Account) {
    account.quota().write(headers);
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

/// The client's own user: as the body names it, else as a header does.
fn user(envelope: &Envelope, headers: &HeaderMap) -> Result<Option<Arc<str>>, Fault> {
    if let Some(user) = &envelope.user {
        return Ok(Some(user.as_str().into()));
    }
    let Some(value) = headers.get(USER_HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(user) if user.len() <= LONGEST_USER => {
            Ok(Some(user).filter(|u| !u.is_empty()).map(Into::into))
        }
        _ => {
            let message =
                format!("{USER_HEADER} is not ASCII, or longer than {LONGEST_USER} bytes");
            Err(Fault::new(Code::InvalidRequest, message))
        }
    }
}

fn unix_now() -> i64 {
    i64::try_from(unix_now_ms() / 1000).unwrap_or(i64::MAX)
}

fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::{poll, stream};

    use super::receive::Budget;
    use super::*;
    use crate::domain::RequestId;
    use crate::provider::Endpoint;

    #[tokio::test]
    async fn a_body_is_charged_until_nobody_reads_it() {
        let json = [&br#"{"model":"m","x":""#[..], &vec![b'x'; 16 << 20], b"\"}"].concat();
        let limits =
            Config { body_limit: 1 << 30, body_budget: 1 << 30, body_stall: Duration::MAX };
        let budget = Arc::new(Budget::new(limits.body_budget));
        let body = stream::iter([Ok(Bytes::from(json))]);
        let received = receive::receive(limits, &budget, &HeaderMap::new(), body).await;
        let request = Request {
            id: RequestId::from_random([7; 16]),
            endpoint: Endpoint::ChatCompletions,
            headers: HeaderMap::new(),
            query: String::new(),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            received: Instant::now(),
        };
        let (turns, received) = (Arc::new(Semaphore::new(1)), received.expect("a whole body"));
        let mut reading = Box::pin(read_envelope(&request, received, &turns));
        assert!(poll!(&mut reading).is_pending(), "a thread reads it");
        drop(reading);
        assert!(budget.in_use() > 16 << 20, "the thread still has it");
        let given_back = async {
            while budget.in_use() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), given_back).await.expect("the thread is done in time");
    }
}
