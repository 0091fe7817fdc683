//! What can be set about connections to providers.

use std::time::Duration;

use super::address::AddressPolicy;

/// Bounds and clocks of one worker's connections; all counts are per provider address.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests in flight, bodies of answers included; more are `Busy`.
    pub max_in_flight: usize,
    /// Idle connections kept; beyond that the oldest is closed.
    pub max_idle: usize,
    /// How long a connection may lie idle. Below the time-outs of providers and their load
    /// balancers (60 s and more), so that it is this side that closes.
    pub idle_keep_alive: Duration,
    /// How old a connection may become before it is no longer reused, so that a provider's move
    /// to other addresses is followed.
    pub lifetime: Duration,
    /// How often idle connections are looked at: one that the provider closed is held that long.
    pub sweep_every: Duration,
    /// How long after a request went out on a used connection a break without any answer still
    /// means that the provider had closed it before. Such a request is sent once more; one that
    /// breaks later was most likely being worked on. A few round trips are enough.
    pub stale_within: Duration,
    /// How long sent data may stay unacknowledged, or the provider's window closed, before the
    /// connection is given up: the clock of a stalled upload.
    pub user_timeout: Duration,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_idle: 128,
            idle_keep_alive: Duration::from_secs(30),
            lifetime: Duration::from_secs(600),
            sweep_every: Duration::from_secs(1),
            stale_within: Duration::from_secs(3),
            user_timeout: Duration::from_secs(30),
            addresses: AddressPolicy::Guarded,
        }
    }
}
