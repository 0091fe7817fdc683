//! Ids, units and newtypes that every other module speaks in: parse, don't validate.
//!
//! Nothing here does I/O or knows another module.

mod base_url;
mod code;
mod glob;
mod headers;
mod ids;
mod key_hash;
mod lifecycle;
mod payload;
mod random;
mod secret;
mod units;
mod usage;

pub use base_url::{BaseUrl, BaseUrlError, Origin, Scheme};
pub use code::{Code, Fault};
pub use glob::Glob;
pub use headers::Headers;
pub use ids::{AttemptId, RequestId};
pub use key_hash::{KeyHash, KeyHashError};
pub use lifecycle::{InFlight, Lifecycle, Phase};
pub use payload::Payload;
pub use random::Random;
pub use secret::Secret;
pub use units::{UnitError, parse_duration, parse_fixed, parse_size};
pub use usage::Usage;
