//! The way of spans to their collector: a thread of its own with its own upstream client.
//!
//! So TLS, the check of addresses and the bounds of an answer are those of every other call, a
//! collector that does not answer holds up nothing but this thread, and the exporter, which may not
//! run on a runtime, waits on a plain channel.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use actix_http::Method;
use actix_http::header::{self, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::domain::{BaseUrl, Headers, Payload};
use crate::telemetry::{TraceAnswer, TraceConfig, TraceSendError, TraceSender};
use crate::upstream::{self, Call, Upstream};

/// An answer says in a few bytes whether all spans were taken; the rest is not read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// For name look-up, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// How much longer than its own clock the thread is waited for.
const GRACE: Duration = Duration::from_secs(1);

type Answered = Result<TraceAnswer, TraceSendError>;

/// One batch, and where its answer goes.
struct Job {
    batch: Bytes,
    answer: SyncSender<Answered>,
}

/// Hands batches to the thread; the thread ends with it.
pub(super) struct Collector {
    jobs: mpsc::Sender<Job>,
    clock: Duration,
}

impl Collector {
    /// Starts the thread.
    pub(super) fn start(config: &TraceConfig, tls: Arc<ClientConfig>) -> io::Result<Self> {
        // There is one exporter, and it waits for each answer.
        let (jobs, mut waiting) = mpsc::channel::<Job>(1);
        let clock = config.timeout;
        let (url, headers) = (config.endpoint.clone(), headers(config));
        let serve = move || {
            let serve = async move {
                let upstream = Upstream::new(upstream::Config::default(), tls);
                while let Some(Job { batch, answer }) = waiting.recv().await {
                    let posted = post(&upstream, &url, headers.clone(), batch);
                    let posted = timeout(clock, posted).await.unwrap_or_else(|_| {
                        let clock = clock.as_millis();
                        Err(TraceSendError(format!("no answer within {clock} ms")))
                    });
                    // The exporter may have given up on it.
                    answer.try_send(posted).ok();
                }
            };
            actix_rt::System::new().block_on(serve);
        };
        thread::Builder::new().name("traces".into()).spawn(serve)?;
        Ok(Self { jobs, clock })
    }
}

impl TraceSender for Collector {
    fn send(&self, batch: Bytes) -> Answered {
        let (answer, answered) = sync_channel(1);
        let gone = |why: &str| TraceSendError(why.to_owned());
        self.jobs.try_send(Job { batch, answer }).map_err(|_| gone("the sender is busy"))?;
        answered.recv_timeout(self.clock + GRACE).map_err(|_| gone("the sender is stuck"))?
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("clock", &self.clock).finish_non_exhaustive()
    }
}

async fn post(upstream: &Upstream, url: &BaseUrl, headers: Headers, batch: Bytes) -> Answered {
    let failed = |error: &dyn fmt::Display| TraceSendError(error.to_string());
    let path = if url.prefix.is_empty() { "/".to_owned() } else { url.prefix.to_string() };
    let body = Payload::from(batch);
    let call = Call { method: Method::POST, path, headers, body, connect: CONNECT };
    let answer = upstream.send(&url.origin, call).await.map_err(|error| failed(&error))?;
    let status = answer.status.as_u16();
    let retry_after = answer.headers.get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (mut rest, mut body) = (answer.body, BytesMut::new());
    while let Some(piece) = rest.next().await {
        let piece = piece.map_err(|error| failed(&error))?;
        if body.len() + piece.len() > LONGEST_ANSWER {
            break;
        }
        body.extend_from_slice(&piece);
    }
    Ok(TraceAnswer { status, retry_after, body: body.freeze() })
}

/// The headers of every post. `config` has seen that each can be sent.
fn headers(config: &TraceConfig) -> Headers {
    let mut headers = Headers::new();
    let kind = HeaderValue::from_static("application/x-protobuf");
    headers.insert(header::CONTENT_TYPE, kind);
    let agent = concat!("flotilla/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in &config.headers {
        let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value.expose()));
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}
