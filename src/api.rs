//! HTTP towards the world: the data listener that clients speak to, and the admin listener.
//!
//! Everything that knows actix's server is here. What a request means is `proxy`'s business; this
//! module gets it in, safely and in bounded time, and its answer out.

mod admin;
mod answer;
mod backend;
mod body;
mod client_ip;
mod connection;
mod cors;
mod data;
mod error;
mod handler;
mod host;
mod models;
mod probe;
mod route;

pub use admin::{AdminConfig, serve as serve_admin};
pub use backend::Backend;
pub use body::RequestBody;
pub use data::{DataConfig, KEEP_ALIVE, serve as serve_data};
