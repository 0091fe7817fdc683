//! What every answer of the data listener carries, whoever made it.

use actix_http::ConnectionType;
use actix_http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};

use super::body::ReplyBody;
use super::connection::Serving;
use super::data::Listener;
use crate::domain::RequestId;
use crate::proxy::{Body, Reply};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-flotilla-request-id");
pub(super) const NODE: HeaderName = HeaderName::from_static("x-flotilla-node");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The longest `x-request-id` that is echoed; UUIDs and trace ids are far below.
const MAX_CLIENT_ID: usize = 128;

/// What an answer needs to know of its request.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: RequestId,
    /// The client's own id for the request, where it can be echoed.
    client_id: Option<HeaderValue>,
    /// The origin to answer to, where it is allowed.
    origin: Option<HeaderValue>,
    /// The connection ends with this answer.
    pub(super) close: bool,
    /// The client speaks HTTP/1.0, which has no chunks.
    pub(super) old: bool,
}

impl Exchange {
    pub(super) fn new(id: RequestId, headers: &HeaderMap, listener: &Listener) -> Self {
        let origin = listener.cors().origin(headers);
        Self { id, client_id: client_id(headers), origin, close: false, old: false }
    }

    /// The reply as actix sends it. `serving` lasts until its body is gone.
    pub(super) fn answer(
        self,
        reply: Reply,
        listener: &Listener,
        serving: Serving,
    ) -> HttpResponse<BoxBody> {
        let Reply { status, mut headers, body } = reply;
        // These are made by whoever writes the message.
        for framing in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
            headers.remove(framing);
        }
        if headers.get(CONTENT_TYPE).is_some_and(is_event_stream) {
            // Whoever is between us and the client must not collect events.
            headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        listener.cors().admit(&mut headers, self.origin);
        let id = id_value(self.id);
        // What SDKs show as the request's id, to be quoted to whoever helps: the client's own, else
        // the provider's, else ours.
        if let Some(clients) = self.client_id {
            headers.insert(CLIENT_REQUEST_ID, clients);
        } else if !headers.contains_key(CLIENT_REQUEST_ID) {
            headers.insert(CLIENT_REQUEST_ID, id.clone());
        }
        headers.insert(REQUEST_ID, id);
        headers.insert(NODE, listener.node().clone());

        let open_ended = self.old && matches!(body, Body::Stream { len: None, .. });
        serving.conn().set_open_ended(open_ended);
        let body = ReplyBody::new(body, serving).boxed();
        let mut response = HttpResponse::with_body(status, body);
        *response.headers_mut() = headers;
        if open_ended {
            response.head_mut().no_chunking(true);
        }
        if self.close || open_ended {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }
}

pub(super) fn id_value(id: RequestId) -> HeaderValue {
    HeaderValue::from_bytes(&id.to_hex()).expect("hexadecimal digits are a header's value")
}

/// The client's id, where it is short and shows nothing but itself.
fn client_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(CLIENT_REQUEST_ID)?;
    let plain = !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
    (plain && id.len() <= MAX_CLIENT_ID).then(|| id.clone())
}

fn is_event_stream(content_type: &HeaderValue) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let bytes = content_type.as_bytes();
    bytes.get(..EVENT_STREAM.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_and_short_client_id_is_echoed() {
        let echo = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CLIENT_REQUEST_ID, HeaderValue::from_bytes(text).expect("a value"));
            client_id(&headers).is_some()
        };
        assert!(echo(b"6f9619ff-8b86-d011-b42d-00cf4fc964ff") && echo(&[b'x'; MAX_CLIENT_ID]));
        assert!(!echo(b"") && !echo(b"a b") && !echo(b"\xff") && !echo(&[b'x'; MAX_CLIENT_ID + 1]));
    }
}
