//! What the store needs of the settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Secret;

/// Settings of the store; made by `config`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Redis is; it may hold a password. None: standalone.
    pub url: Option<Secret>,
    /// Starts every key and channel.
    pub prefix: Arc<str>,
    /// The longest that a call on the way of a request may take.
    pub deadline: Duration,
    /// Certificate authorities for TLS to Redis.
    pub tls_ca: Option<PathBuf>,
    /// The node's own certificate for Redis.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate.
    pub tls_key: Option<PathBuf>,
    /// How long permits and members live without being renewed.
    pub lease_ttl: Duration,
    /// The time between two heartbeats.
    pub tick: Duration,
    /// After this silence a node is lost.
    pub node_ttl: Duration,
    /// Which run of a node this is: random.
    pub incarnation: u64,
    /// The node's id.
    pub node: Arc<str>,
    /// Where usage is kept while Redis is away.
    pub state_dir: Option<PathBuf>,
}
