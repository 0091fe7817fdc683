//! Node settings and the fleet document: load, validate everything, compile to a snapshot.
//!
//! The only place that reads the environment and configuration files. Whatever is wrong is
//! collected and reported in one go, each fault with its place, what is wrong and what to write
//! instead; nothing of a secret is ever part of a message.
//!
//! A document takes this way: bytes -> `tree` (values with their places, from YAML, JSON or TOML)
//! -> `walk` (the schema that is made from the types of `document`) -> `check` (what a schema
//! cannot say) -> `compile` (a snapshot for this node).

mod check;
mod compile;
mod counting;
mod defaults;
mod document;
mod env;
mod fault;
mod load;
mod reach;
mod schema;
mod settings;
mod tree;
mod walk;
mod watch;

pub use compile::compile;
pub use defaults::{default_document, needs_simulator};
pub use document::Document;
pub use env::Env;
pub use fault::{DocumentFault, Fault, Warning};
pub use load::{Format, Loaded, load};
pub use schema::json_schema;
pub use settings::{
    LogFormat, RedisSettings, RedisUrl, SETTINGS_REFERENCE, Settings, StoreSettings, TlsClient,
    exposure_faults,
};
pub use watch::{Seen, Watch};
