//! How a node takes part in a fleet's state.

use super::{connection, redis};

/// What `Store::redis` needs; made of the settings by whoever builds the node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Redis is, and how long a call on the way of a request may take.
    pub connection: connection::Config,
    /// Under which prefix, and how long leases live.
    pub shape: redis::Shape,
    /// Which run of a node this is: random.
    pub incarnation: u64,
}
