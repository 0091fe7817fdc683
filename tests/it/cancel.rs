//! T15: a client that leaves stops the call to the provider within a second, in every phase, and
//! what was used until then is recorded.

mod phases;
mod unseen;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::client::{Client, post};
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::wall::{Attempt, DEADLINE, Wall};

/// The promise.
const SOON: Duration = Duration::from_secs(1);

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Goodbye {
    /// It closes the connection.
    Fin,
    /// It resets it.
    Rst,
    /// It sends no more and still reads.
    Half,
}

const GOODBYES: [Goodbye; 3] = [Goodbye::Fin, Goodbye::Rst, Goodbye::Half];

/// Leaves; for a client that still reads, the answer must end.
async fn leave(mut client: Client, goodbye: Goodbye) -> Instant {
    let left = Instant::now();
    match goodbye {
        Goodbye::Fin => drop(client),
        Goodbye::Rst => client.reset(),
        Goodbye::Half => {
            client.half_close().await;
            client.drain().await;
            assert!(left.elapsed() < SOON, "the node kept the connection of a client that left");
        }
    }
    left
}

/// A connection on which a request was sent.
async fn sent(addr: SocketAddr, request: &[u8]) -> Client {
    let mut client = Client::connect(addr).await;
    client.send(request).await;
    client
}

/// A request of an endpoint that carries a note for the wall.
fn request(endpoint: &str, model: &str, note: &str) -> Vec<u8> {
    match endpoint {
        "chat stream" => json("/v1/chat/completions", model, note, r#""stream":true"#),
        "chat" => json("/v1/chat/completions", model, note, r#""stream":false"#),
        "completions stream" => json("/v1/completions", model, note, r#""stream":true"#),
        "embeddings" => json("/v1/embeddings", model, note, r#""input":"hi""#),
        "speech" => json("/v1/audio/speech", model, note, r#""input":"hi""#),
        "transcription" => form("/v1/audio/transcriptions", model, note, b"RIFF"),
        _ => unreachable!("{endpoint}"),
    }
}

fn json(path: &str, model: &str, note: &str, more: &str) -> Vec<u8> {
    let body = format!(r##"{{"model":"{model}",{more},"user":"#{note}#"}}"##);
    post(path, &[], body.as_bytes())
}

/// An upload.
fn form(path: &str, model: &str, note: &str, file: &[u8]) -> Vec<u8> {
    let start = format!(
        "--edge\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
         --edge\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n#{note}#\r\n\
         --edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
    );
    let body = [start.as_bytes(), file, b"\r\n--edge--\r\n"].concat();
    post(path, &[("content-type", "multipart/form-data; boundary=edge")], &body)
}

/// Waits for the attempt with this note.
async fn attempt(wall: &Wall, note: &str) -> Arc<Attempt> {
    let mark = format!("#{note}#");
    let with_mark = || {
        let mut attempts = wall.attempts().into_iter();
        attempts.find(|it| memchr::memmem::find(&it.body(), mark.as_bytes()).is_some())
    };
    eventually(DEADLINE, || with_mark().is_some()).await;
    with_mark().expect("it was just there")
}

/// Waits until no request is in flight, and so until all of them are recorded.
async fn all_gone(node: &Node) {
    eventually(SOON, || node.metric("flotilla_requests_in_flight") == 0.0).await;
}

/// How many requests and attempts ended because their client left, and how many were estimated.
fn recorded(node: &Node) -> (f64, f64, f64) {
    let metrics = node.metrics();
    let sum = |name: &str| -> f64 {
        let of_name = metrics.lines().filter(|line| {
            line.starts_with(name) && (line.contains("client_gone") || name.contains("usage"))
        });
        of_name.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    (
        sum("flotilla_requests_total{"),
        sum("flotilla_attempts_total{"),
        sum("flotilla_usage_estimated_total{"),
    )
}
