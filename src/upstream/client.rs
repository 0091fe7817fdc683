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
use super::dial::dial;
use super::exchange::Exchange;
use super::outgoing::{Date, Outgoing, is_target};
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
    date: Date,
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
        Self {
            inner: Rc::new(Inner { config, tls, date: Date::default(), sites, _sweeper: sweeper }),
        }
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
        if !is_target(&call.path) {
            return Err(SendError::Malformed);
        }
        let site = inner.sites.site(origin, &inner.config)?;
        let mut permit = site.enter(&inner.config).ok_or(SendError::Busy)?;
        let mut reuse = true;
        loop {
            let idle = if reuse { site.take_idle(&inner.config) } else { None };
            let reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                // Boxed, because it is large and rare, and would be moved with every request.
                None => Box::pin(inner.connect(&site, call.connect)).await?,
            };
            let to_head = call.method == Method::HEAD;
            let mut exchange = Exchange::new(connection, reused, permit, to_head);
            let request = Outgoing::new(&call, site.host(), &inner.date);
            match exchange.transmit(request).await {
                Ok((status, headers)) => {
                    return Ok(Answer { status, headers, body: AnswerBody::new(exchange) });
                }
                // A fresh connection is never stale, so this happens once.
                Err(_) if exchange.is_stale(inner.config.stale_within) => {
                    reuse = false;
                    permit = exchange.into_permit();
                }
                Err(error) => return Err(error),
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
