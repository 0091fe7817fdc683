//! The upstream client against a scripted provider: each test is one promise of its boundary, and
//! most are one of the cures that plain awc needs (T32).

mod bounds;
mod connect;
mod early;
mod exchange;
mod fuzz;
mod hostile;
mod idle;
mod memory;
mod mixing;
mod stale;
mod truncation;

use std::time::Duration;

use actix_http::Method;
use bytes::{Bytes, BytesMut};
use flotilla::domain::{Headers, Origin, Payload};
use flotilla::upstream::{Answer, BodyError, Call, Config, SendError, Upstream, tls_config};
use futures_util::StreamExt;

use crate::support::wall::{DEADLINE, Wall};

/// Runs a test as a worker runs: one thread, local tasks.
fn on_worker<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

/// A client that trusts this wall.
fn client_of(wall: &Wall, config: Config) -> Upstream {
    let ca = (wall.base_url("").starts_with("https")).then(|| wall.ca().as_bytes());
    Upstream::new(config, tls_config(ca).expect("a good CA"))
}

fn call(method: Method, body: impl Into<Bytes>) -> Call {
    Call {
        method,
        path: "/v1/chat/completions?a=b".into(),
        headers: Headers::new(),
        body: Payload::from(body.into()),
        connect: Duration::from_secs(5),
    }
}

/// Fails the test instead of hanging.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

async fn send(upstream: &Upstream, origin: &Origin) -> Result<Answer, SendError> {
    in_time(upstream.send(origin, call(Method::POST, "{}"))).await
}

/// The whole body, or what came before it failed.
async fn read(answer: Answer) -> Result<Bytes, (Bytes, BodyError)> {
    let mut body = answer.body;
    let mut whole = BytesMut::new();
    while let Some(piece) = in_time(body.next()).await {
        match piece {
            Ok(piece) => {
                assert!(!piece.is_empty(), "an empty piece");
                whole.extend_from_slice(&piece);
            }
            Err(error) => {
                assert!(in_time(body.next()).await.is_none(), "nothing comes after an error");
                return Err((whole.freeze(), error));
            }
        }
    }
    Ok(whole.freeze())
}

/// Sends, expects an answer, reads it whole.
async fn get(upstream: &Upstream, origin: &Origin) -> Bytes {
    let answer = send(upstream, origin).await.expect("an answer");
    read(answer).await.expect("a whole body")
}
