//! What a store in Redis needs of the settings.

use std::time::Duration;

use super::connection;
use super::redis::{Redis, Shape};

/// How long calls may take that no request waits for.
const PATIENT: Duration = Duration::from_secs(1);

/// Settings of a store that nodes share; made by `app` of what `config` has read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Redis is, and how long a call on the way of a request may take.
    pub connection: connection::Config,
    /// What differs between fleets.
    pub shape: Shape,
    /// Which run of a node this is: random.
    pub incarnation: u64,
}

impl Config {
    /// The same for calls that no request waits for.
    pub(super) fn patient(&self) -> Self {
        let mut config = self.clone();
        config.connection.deadline = config.connection.deadline.max(PATIENT);
        config
    }

    /// A connection for this thread; called on its runtime.
    pub(super) fn open(&self) -> Redis {
        Redis::open(&self.connection, &self.shape).expect("the settings were read at the start")
    }
}
