//! What the tests share: scripted providers, proxies that misbehave, nodes to start.

pub(crate) mod wall;
pub(crate) mod chaos;
