//! An answer that comes while a large request is still on its way.

use std::time::Duration;

use actix_http::{Method, StatusCode};
use flotilla::upstream::{Config, SendError};

use super::{call, client_of, get, in_time, on_worker, read};
use crate::support::wall::{Gate, Script, Wall, answer};

/// More than all buffers between the two sides hold.
const BIG: usize = 16 * 1024 * 1024;

const REFUSAL: &str = r#"{"error":"slow down"}"#;

/// What a provider does besides refusing, and its script.
type Way = (&'static str, fn() -> Script);

fn refusal() -> Script {
    Script::new().send(answer(429, &[("retry-after", "7")], REFUSAL))
}

// T32: plain awc fails with a reset, or waits for ever.
#[test]
fn an_early_refusal_of_a_big_upload_is_seen() {
    let ways: [Way; 6] = [
        ("keeps open, reads nothing", || refusal().freeze()),
        ("closes, reads nothing", || refusal().close()),
        ("resets, reads nothing", || refusal().pause_unread().reset()),
        ("reads all after it", || refusal().read().stall()),
        ("reads slowly after it", || {
            refusal().read_slowly(65_536, Duration::from_millis(1)).stall()
        }),
        ("ends its direction and reads on", || refusal().half_close()),
    ];
    for tls in [false, true] {
        for (way, script) in ways {
            let wall = Wall::start_early(tls, move |attempt| match attempt.number {
                0 => script(),
                _ => Script::new().read().send(answer(200, &[], "second")),
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                let origin = wall.origin();
                let sent = upstream.send(&origin, call(Method::POST, vec![b'x'; BIG]));
                let what = format!("{way}, TLS {tls}");
                let answer = in_time(sent).await.unwrap_or_else(|error| {
                    unreachable!("{what}: {error:?}");
                });
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{what}");
                assert_eq!(
                    answer.headers.get("retry-after").map(|v| v.as_bytes()),
                    Some(&b"7"[..])
                );
                assert_eq!(read(answer).await, Ok(REFUSAL.into()), "{what}");
                // The connection still has half a request on it.
                assert_eq!(get(&upstream, &wall.origin()).await, "second", "{what}");
                let whole = way == "reads all after it" || way == "reads slowly after it";
                assert!(wall.connections() == 2 || whole, "{what}: used again");
            });
        }
    }
}

#[test]
fn an_informational_head_does_not_end_an_upload() {
    for tls in [false, true] {
        let gate = Gate::new();
        let wall = Wall::start_early(tls, {
            let gate = gate.clone();
            move |_| {
                let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n";
                let script = Script::new().send(interim).wait_unread(&gate).read();
                script.send(answer(200, &[], "whole"))
            }
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let origin = wall.origin();
            let mut sent = Box::pin(upstream.send(&origin, call(Method::POST, vec![b'x'; BIG])));
            let early = tokio::time::timeout(Duration::from_millis(100), &mut sent).await;
            assert!(early.is_err(), "an informational head ended the upload");
            gate.open();
            assert_eq!(read(in_time(sent).await.expect("an answer")).await, Ok("whole".into()));
            assert_eq!(wall.attempt(0).await.body().len(), BIG);
        });
    }
}

#[test]
fn a_big_upload_arrives_unchanged() {
    for tls in [false, true] {
        let wall = Wall::start_with(tls, |_| Script::json(200, "{}"));
        on_worker(async {
            let body: Vec<u8> =
                (0..BIG as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let upstream = client_of(&wall, Config::default());
            let origin = wall.origin();
            let sent = upstream.send(&origin, call(Method::POST, body.clone()));
            read(in_time(sent).await.expect("an answer")).await.expect("whole");
            let attempt = wall.attempt(0).await;
            assert!(attempt.body() == body, "the body changed on its way");
            assert_eq!(attempt.header("content-length"), Some(BIG.to_string().as_str()));
            assert_eq!(attempt.header("transfer-encoding"), None);
        });
    }
}

#[test]
fn a_provider_that_leaves_during_an_upload_is_closed() {
    for tls in [false, true] {
        for leave in [Script::close as fn(Script) -> Script, Script::cut, Script::reset] {
            let wall = Wall::start_early(tls, move |_| leave(Script::new()));
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                let origin = wall.origin();
                let sent = upstream.send(&origin, call(Method::POST, vec![b'x'; BIG]));
                let outcome = in_time(sent).await;
                assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
                assert_eq!(wall.count(), 1);
            });
        }
    }
}

#[test]
fn an_early_answer_that_breaks_off_is_truncated() {
    let head = "HTTP/1.1 413 Too Large\r\ncontent-length: 100\r\n\r\nhello";
    let wall = Wall::start_early(false, move |_| Script::new().send(head).close());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let origin = wall.origin();
        let sent = upstream.send(&origin, call(Method::POST, vec![b'x'; BIG]));
        let answer = in_time(sent).await.expect("a head");
        let (so_far, error) = read(answer).await.expect_err("not whole");
        assert_eq!(
            (so_far.as_ref(), error),
            (&b"hello"[..], flotilla::upstream::BodyError::Truncated)
        );
    });
}

#[test]
fn an_upload_that_nobody_reads_ends_with_the_user_timeout() {
    let wall = Wall::start_early(false, |_| Script::new().freeze());
    on_worker(async {
        let config = Config { user_timeout: Duration::from_millis(500), ..Config::default() };
        let upstream = client_of(&wall, config);
        let origin = wall.origin();
        let outcome = in_time(upstream.send(&origin, call(Method::POST, vec![b'x'; BIG]))).await;
        assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
    });
}
