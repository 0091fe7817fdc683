//! What the tests share: scripted providers, proxies that misbehave, clients, nodes to start.

pub(crate) mod blackhole;
pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod crowd;
pub(crate) mod document;
pub(crate) mod eventually;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod recorded;
pub(crate) mod redis;
pub(crate) mod wall;
