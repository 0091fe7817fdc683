//! `Upstream::send`: choose or make a connection, send, and send once more where the connection
//! turned out to be stale.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Method;
use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use super::answer_body::AnswerBody;
use super::config::Config;
use super::connector::{client, transmit, uri};
use super::dial::dial;
use super::head::restore;
use super::io::{End, Exchange, Io};
use super::site::{Site, Sites, Standing};
use super::socket::Connection;
use super::{Answer, Call, SendError};
use crate::domain::Origin;
use crate::telemetry::UpstreamLevels;

/// One worker's connections to all providers. Clones are the same; it stays on its thread.
#[derive(Clone)]
pub struct Upstream {
    inner: Rc<Inner>,
}

struct Inner {
    config: Rc<Config>,
    tls: TlsConnector,
    client: awc::Client,
    sites: Rc<Sites>,
    _sweeper: Sweeper,
}

/// The task that closes idle connections; it ends with its owner.
struct Sweeper(JoinHandle<()>);

impl Upstream {
    /// Makes a worker's client. Call it on the worker: it starts a task there, which ends when
    /// the last clone is dropped.
    #[must_use]
    pub fn new(config: Config, tls: Arc<ClientConfig>) -> Self {
        Self::with_levels(config, tls, UpstreamLevels::default())
    }

    /// As `new`, and what it holds is counted in `levels`, for other threads to see.
    #[must_use]
    pub fn with_levels(config: Config, tls: Arc<ClientConfig>, levels: UpstreamLevels) -> Self {
        let config = Rc::new(config);
        let sites = Rc::new(Sites::new(levels));
        let sweeper = Sweeper::start(Rc::clone(&sites), Rc::clone(&config));
        let tls = TlsConnector::from(tls);
        Self { inner: Rc::new(Inner { config, tls, client: client(), sites, _sweeper: sweeper }) }
    }

    /// Sends a request and waits for the head of its answer. No clock runs but `call.connect`.
    ///
    /// # Errors
    /// See `SendError`. Whether the provider saw the request is not known after `Closed` and
    /// `Malformed`; after all others it did not.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection at once.
    pub async fn send(&self, origin: &Origin, call: Call) -> Result<Answer, SendError> {
        let inner = &*self.inner;
        let uri = uri(&call.path).ok_or(SendError::Malformed)?;
        let site = inner.sites.site(origin, &inner.config)?;
        let permit = site.enter(&inner.config).ok_or(SendError::Busy)?;
        let mut reuse = true;
        loop {
            let idle = if reuse { site.take_idle(&inner.config) } else { None };
            let reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                None => inner.connect(&site, call.connect).await?,
            };
            let exchange = Exchange::new(reused);
            let io = Io::new(connection, Rc::clone(&exchange), &site, call.method == Method::HEAD);
            let host = site.host().clone();
            match transmit(&inner.client, uri.clone(), host, &call, io).await {
                Ok((status, mut headers, payload)) => {
                    if exchange.is_patched() {
                        restore(&mut headers);
                    }
                    let body = AnswerBody::new(payload, exchange, permit);
                    return Ok(Answer { status, headers, body });
                }
                // A fresh connection is never stale, so this happens once.
                Err(_) if exchange.is_stale(inner.config.stale_within) => reuse = false,
                Err(error) => return Err(blame(&exchange, &error)),
            }
        }
    }

    /// What this worker holds at the moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.inner.sites.standing()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Inner {
    async fn connect(&self, site: &Site, clock: Duration) -> Result<Connection, SendError> {
        let dialled = timeout(clock, dial(site, &self.config, &self.tls)).await;
        dialled.unwrap_or(Err(SendError::ConnectTimeout))
    }
}

/// What the caller is told. The connection knows best; where it has nothing to say, the codec
/// refused what the connection let pass.
fn blame(exchange: &Exchange, error: &awc::error::SendRequestError) -> SendError {
    match (exchange.end(), error) {
        (End::Malformed, _) | (_, awc::error::SendRequestError::Http(_)) => SendError::Malformed,
        (End::Broken, _) => SendError::Closed,
        (End::Open | End::Complete, awc::error::SendRequestError::Response(_)) => {
            SendError::Malformed
        }
        (End::Open | End::Complete, _) => SendError::Closed,
    }
}

impl Sweeper {
    fn start(sites: Rc<Sites>, config: Rc<Config>) -> Self {
        Self(actix_rt::spawn(async move {
            let mut ticks = interval(config.sweep_every.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                sites.sweep(&config);
            }
        }))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
