//! Secure by construction: what must never leave the node, and who must never get in.

mod access;
mod addresses;
mod headers;
mod secrets;

use flotilla::provider::{BodyKind, Endpoint};

/// A body for this endpoint, with its content type.
fn body_for(endpoint: Endpoint, model: &str, stream: bool) -> (&'static str, String) {
    if endpoint.body_kind() == BodyKind::Form {
        let field = |name: &str, value: &str| {
            format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
                    content-type: application/octet-stream\r\n\r\nbytes\r\n--b--\r\n";
        let stream = field("stream", &stream.to_string());
        return (
            "multipart/form-data; boundary=b",
            format!("{}{stream}{file}", field("model", model)),
        );
    }
    let body = serde_json::json!({
        "model": model, "stream": stream, "input": "hi", "prompt": "hi",
        "messages": [{ "role": "user", "content": "hi" }],
    });
    ("application/json", body.to_string())
}
