//! OpenAI's wire protocol.
//!
//! Requests: `request` (JSON) and `form` (multipart) read the envelope. Answers: `stream` follows
//! a stream of events, whose single events `chunk` reads unless `alike` knows them; `usage` reads
//! figures, `usage_scan`
//! finds them in a plain answer. `error` and `headers` are what both sides see besides.

mod alike;
mod chunk;
mod error;
pub(super) mod form;
mod headers;
pub(super) mod request;
mod stream;
mod usage;
mod usage_scan;

pub use error::{error_as_event, error_body, error_event, error_type};
pub use headers::{answer_headers, is_answer, request_headers};
pub use stream::Stream;
pub use usage_scan::UsageScan;
