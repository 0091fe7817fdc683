//! What the tests share: scripted providers, proxies that misbehave, nodes to start.

pub(crate) mod eventually;
pub(crate) mod wall;
