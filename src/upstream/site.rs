//! What a worker holds for one provider address: idle connections, a count of requests in flight.
//!
//! The pool is last in, first out, so that what is not needed grows old and goes; bounded; swept.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use actix_http::header::HeaderValue;
use bytes::BytesMut;
use tokio::time::Instant;

use super::SendError;
use super::config::Config;
use super::lookup::Lookup;
use super::socket::Connection;
use crate::domain::Origin;
use crate::telemetry::{Held, UpstreamLevels};

/// All provider addresses this worker knows. A site without requests or idle connections is
/// forgotten by the sweep, so this holds no more than the configuration names.
#[derive(Debug, Default)]
pub(super) struct Sites {
    sites: RefCell<HashMap<Origin, Rc<Site>>>,
    levels: UpstreamLevels,
}

/// One provider address.
#[derive(Debug)]
pub(super) struct Site {
    origin: Origin,
    host: HeaderValue,
    lookup: Lookup,
    in_flight: Cell<usize>,
    idle: RefCell<VecDeque<Idle>>,
    max_idle: usize,
    inbox: RefCell<BytesMut>,
    levels: UpstreamLevels,
    _held: Held,
}

/// What is read into at a time, at most. Long answers fill it; what is read is given on as parts of
/// it, and it is used again as soon as none of them is left.
const INBOX: usize = 16 * 1024;

/// The room for a read, at least.
const LEAST_ROOM: usize = 4 * 1024;

/// A connection that waits for its next request.
#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
    _held: Held,
}

/// One request in flight; the count goes down when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    site: Rc<Site>,
    _held: Held,
}

/// What a worker holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Provider addresses.
    pub origins: usize,
    /// Requests in flight, bodies of answers included.
    pub in_flight: usize,
    /// Idle connections.
    pub idle: usize,
}

// === impl Sites ===

impl Sites {
    /// None yet; what there will be is counted in `levels`.
    pub(super) fn new(levels: UpstreamLevels) -> Self {
        Self { sites: RefCell::default(), levels }
    }

    /// The site of `origin`.
    pub(super) fn site(&self, origin: &Origin, config: &Config) -> Result<Rc<Site>, SendError> {
        let mut sites = self.sites.borrow_mut();
        if let Some(site) = sites.get(origin) {
            return Ok(Rc::clone(site));
        }
        let site = Rc::new(Site::new(origin, config.max_idle, &self.levels)?);
        sites.insert(origin.clone(), Rc::clone(&site));
        Ok(site)
    }

    /// Closes what is idle for too long, too old, closed by the provider or no longer in step.
    pub(super) fn sweep(&self, config: &Config) {
        let now = Instant::now();
        self.sites.borrow_mut().retain(|_, site| {
            let mut idle = site.idle.borrow_mut();
            idle.retain(|idle| idle.is_usable(config, now));
            !idle.is_empty() || Rc::strong_count(site) > 1
        });
    }

    /// Counts.
    pub(super) fn standing(&self) -> Standing {
        let sites = self.sites.borrow();
        sites.values().fold(Standing::default(), |sum, site| Standing {
            origins: sum.origins + 1,
            in_flight: sum.in_flight + site.in_flight.get(),
            idle: sum.idle + site.idle.borrow().len(),
        })
    }
}

// === impl Site ===

impl Site {
    /// A site without connections.
    pub(super) fn new(
        origin: &Origin,
        max_idle: usize,
        levels: &UpstreamLevels,
    ) -> Result<Self, SendError> {
        let host = HeaderValue::from_str(&origin.host_header()).map_err(|error| {
            SendError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error))
        })?;
        Ok(Self {
            origin: origin.clone(),
            host,
            lookup: Lookup::new(),
            in_flight: Cell::new(0),
            idle: RefCell::default(),
            max_idle,
            inbox: RefCell::default(),
            levels: levels.clone(),
            _held: levels.origins.hold(),
        })
    }

    /// Where it is.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value of the `Host` header.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Its addresses.
    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Where its connections read into; empty, with room. All of them share it, so that one that
    /// waits holds none.
    pub(super) fn inbox(&self) -> RefMut<'_, BytesMut> {
        let mut inbox = self.inbox.borrow_mut();
        if inbox.capacity() < LEAST_ROOM {
            inbox.reserve(INBOX);
        }
        inbox
    }

    /// Counts one request in, unless there are too many.
    pub(super) fn enter(self: &Rc<Self>, config: &Config) -> Option<Permit> {
        let in_flight = self.in_flight.get();
        (in_flight < config.max_in_flight).then(|| {
            self.in_flight.set(in_flight + 1);
            Permit { site: Rc::clone(self), _held: self.levels.in_flight.hold() }
        })
    }

    /// Takes the connection that was used last, if it can still be used.
    pub(super) fn take_idle(&self, config: &Config) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop_back() {
            if last.is_usable(config, now) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer is complete, in place of the oldest if there are too many.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let _held = self.levels.idle.hold();
        idle.push_back(Idle { connection, since: Instant::now(), _held });
        if idle.len() > self.max_idle {
            idle.pop_front();
        }
    }
}

// === impl Idle ===

impl Idle {
    fn is_usable(&self, config: &Config, now: Instant) -> bool {
        now.duration_since(self.since) < config.idle_keep_alive
            && now.duration_since(self.connection.opened) < config.lifetime
            && self.connection.socket.is_quiet()
    }
}

// === impl Permit ===

impl Permit {
    /// The site it counts for.
    pub(super) fn site(&self) -> &Rc<Site> {
        &self.site
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.site.in_flight.set(self.site.in_flight.get().saturating_sub(1));
    }
}
