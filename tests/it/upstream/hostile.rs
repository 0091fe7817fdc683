//! A provider that means harm, and a document that does: what they send is bounded, and begins
//! nothing that nobody asked for.

use std::time::{Duration, Instant};

use actix_http::Method;
use flotilla::domain::Origin;
use flotilla::upstream::{Config, SendError};

use super::{call, client_of, get, in_time, on_worker, read, send};
use crate::support::wall::{Script, Wall, chunk};

/// More than a head may have.
const LONG: usize = 64 * 1024;

#[test]
fn a_head_beyond_the_bound_is_malformed_however_it_comes() {
    let line = "x-filler: 0123456789abcdefghijklmnopqrstuvwxyz\r\n";
    let status = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n";
    let heads = [
        format!("{status}x: {}\r\n\r\n", "y".repeat(LONG)),
        format!("{status}{}\r\n", line.repeat(97)),
        format!("{status}x: {}", "y".repeat(2 * LONG)),
        format!("HTTP/1.1 200 {}\r\n\r\n", "y".repeat(LONG)),
        format!("HTTP/1.1 103 Early\r\nx: {}\r\n\r\n", "y".repeat(LONG)),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(LONG / 20),
    ];
    for head in heads {
        for cuts in [vec![], vec![head.len() / 2], vec![20, 4_000, 65_000]] {
            let wall = Wall::always(Script::new().split(&head, &cuts).stall());
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                let outcome = send(&upstream, &wall.origin()).await;
                assert!(matches!(outcome, Err(SendError::Malformed)), "{head:.60}: {outcome:?}");
                assert_eq!(upstream.standing().idle, 0);
                wall.attempt(0).await.closed().await;
            });
        }
    }
}

#[test]
fn framing_without_end_brings_nothing_and_stops_nobody_else() {
    const FLOOD: usize = 8 << 20;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let zeros = "0".repeat(FLOOD);
    for (before, flood, after) in [
        ("5;x=", "y".repeat(FLOOD), "\r\nhello\r\n0\r\n\r\n"),
        ("5\r\nhello\r\n0\r\nx: ", "y".repeat(FLOOD), "\r\n\r\n"),
        ("5\r\nhello\r\n0\r\n", "x: y\r\n".repeat(FLOOD / 6), "\r\n"),
        ("", zeros, "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let flooding = [head, before, &flood, after].concat();
        let flooding = Wall::always(Script::new().send(flooding));
        let other = Wall::always(Script::json(200, "ok"));
        on_worker(async {
            let upstream = client_of(&flooding, Config::default());
            let answer = send(&upstream, &flooding.origin()).await.expect("a head");
            let reading = actix_rt::spawn(read(answer));
            let begun = Instant::now();
            assert_eq!(get(&upstream, &other.origin()).await, "ok");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
            assert_eq!(in_time(reading).await.expect("it ends"), Ok("hello".into()));
        });
    }
}

#[test]
fn a_chunk_larger_than_any_number_is_malformed() {
    let sizes = ["10000000000000000", "fffffffffffffffff", "-1", "0x5", "5 5", "\u{ff15}"];
    for size in sizes {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let bytes = [head.as_bytes(), &chunk("good"), size.as_bytes(), b"\r\nhello\r\n0\r\n\r\n"];
        let wall = Wall::always(Script::new().send(bytes.concat()));
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let answer = send(&upstream, &wall.origin()).await.expect("a head");
            let (so_far, error) = read(answer).await.expect_err("no chunk");
            assert_eq!((so_far, error), ("good".into(), flotilla::upstream::BodyError::Malformed));
            assert_eq!(upstream.standing().idle, 0, "{size}");
        });
    }
}

// T31c
#[test]
fn a_host_cannot_begin_a_header_of_its_own() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        for host in ["127.0.0.1\r\nx: y", "127.0.0.1\n", "127.0.0.1\0"] {
            let origin = Origin { host: host.into(), ..wall.origin() };
            let outcome = in_time(upstream.send(&origin, call(Method::POST, "{}"))).await;
            assert!(matches!(outcome, Err(SendError::Connect(_))), "{host:?}: {outcome:?}");
        }
        assert_eq!(wall.connections(), 0);
    });
}

#[test]
fn a_provider_that_ends_its_direction_too_early_has_given_no_answer() {
    for tls in [false, true] {
        let wall = Wall::start_with(tls, |attempt| match attempt.number {
            0 => Script::new().half_close(),
            1 => Script::new().send("HTTP/1.1 200 OK\r\ncontent-le").half_close(),
            _ => Script::new().send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").half_close(),
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            for _ in 0..2 {
                let outcome = send(&upstream, &wall.origin()).await;
                assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
            }
            let answer = send(&upstream, &wall.origin()).await.expect("a head");
            let (so_far, error) = read(answer).await.expect_err("half an answer");
            assert_eq!((so_far, error), ("hal".into(), flotilla::upstream::BodyError::Truncated));
            wall.attempt(2).await.closed().await;
        });
    }
}
