//! What the chaos run (tests/chaos) takes of the support, as the root of its `support`.

pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod eventually;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod recorded;
pub(crate) mod redis;
pub(crate) mod wall;
