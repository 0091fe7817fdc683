//! Promise 9: retries are bounded, by attempts, by time, by a budget, and by sense (T21, T22).

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::client::ask_chat;
use crate::support::document::Document;
use crate::support::wall::{Script, Wall, answer};

/// A refusal with a body of its own.
fn refusal(status: u16, headers: &[(&str, &str)]) -> Script {
    let headers = [&[("content-type", "application/json")], headers].concat();
    Script::new().send(answer(status, &headers, format!(r#"{{"error":{{"code":"s{status}"}}}}"#)))
}

fn refusing(status: u16, headers: &[(&str, &str)]) -> Wall {
    Wall::always(refusal(status, headers))
}

fn good() -> Script {
    Script::json(200, "{}")
}

// T21
#[tokio::test]
async fn one_cap_holds_for_all_attempts_over_all_tiers() {
    let walls: Vec<_> = (0..5).map(|_| refusing(503, &[])).collect();
    let [a, b, c, d, e] = &walls[..] else { unreachable!("five walls") };
    let node = Document::of(&[a, b, c, d, e], "retry: { attempts: 4 }").serve();
    for stream in [true, false] {
        let before: usize = walls.iter().map(Wall::count).sum();
        let response = ask_chat(node.data, "p", stream).await;
        assert_eq!((response.status, response.code()), (503, "s503".into()));
        assert_eq!(response.header("x-flotilla-attempts"), Some("4"));
        let after: usize = walls.iter().map(Wall::count).sum();
        assert_eq!(after - before, 4);
    }
    assert_eq!(e.count(), 0);
}

// T21
#[tokio::test]
async fn the_default_cap_is_three_attempts_at_one_target_too() {
    let wall = refusing(500, &[]);
    let node = Document::of(&[&wall], "").serve();
    assert_eq!(ask_chat(node.data, "p", false).await.status, 500);
    assert_eq!(wall.count(), 3);
}

// T21, T22
#[tokio::test]
async fn what_is_the_clients_own_fault_is_told_at_once_and_not_retried() {
    for status in [400, 404, 409, 413, 415, 422, 451] {
        let (first, second) = (refusing(status, &[("x-request-id", "r1")]), Wall::always(good()));
        let node = Document::of(&[&first, &second], "").serve();
        for stream in [true, false] {
            let response = ask_chat(node.data, "p", stream).await;
            assert_eq!((response.status, response.code()), (status, format!("s{status}")));
            assert_eq!(response.header("x-flotilla-attempts"), Some("1"));
        }
        assert_eq!((first.count(), second.count()), (2, 0), "{status}");
    }
}

// T21, T22
#[tokio::test]
async fn each_failure_of_a_target_is_answered_by_another_one() {
    for script in [
        refusal(401, &[]),
        refusal(403, &[]),
        refusal(408, &[]),
        refusal(429, &[("retry-after", "30")]),
        refusal(500, &[]),
        refusal(502, &[]),
        refusal(503, &[]),
        refusal(529, &[]),
        Script::new().reset(),
        Script::new().close(),
        Script::new().send("SSH-2.0-x\r\n").close(),
    ] {
        let (first, second) = (Wall::always(script), Wall::always(good()));
        let node = Document::of(&[&first, &second], "").serve();
        let start = Instant::now();
        let response = ask_chat(node.data, "p", false).await;
        assert_eq!((response.status, &*response.text()), (200, "{}"));
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"));
        assert!(start.elapsed() < Duration::from_secs(2), "another target is asked without a wait");
        assert_eq!((first.count(), second.count()), (1, 1));
    }
}

// T21, T22
#[tokio::test]
async fn a_short_retry_after_is_waited_for() {
    for (name, value, wait) in [("retry-after-ms", "400", 400), ("retry-after", "1", 1000)] {
        let wall = Wall::sequence([refusal(429, &[(name, value)]), good()]);
        let node = Document::of(&[&wall], "").serve();
        let response = ask_chat(node.data, "p", false).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-flotilla-attempts"), Some("2"));
        let attempts = wall.attempts();
        let waited = attempts[1].at.duration_since(attempts[0].at);
        assert!(waited >= Duration::from_millis(wait), "{name}: asked again after {waited:?}");
    }
}

// T21, T22
#[tokio::test]
async fn a_long_retry_after_is_the_clients_to_wait_for() {
    for status in [429, 503] {
        let headers = [("retry-after", "30"), ("x-ratelimit-remaining-requests", "0")];
        let wall = refusing(status, &headers);
        let node = Document::of(&[&wall], "").serve();
        for stream in [true, false] {
            let response = ask_chat(node.data, "p", stream).await;
            assert_eq!((response.status, response.code()), (status, format!("s{status}")));
            for (name, value) in headers {
                assert_eq!(response.header(name), Some(value));
            }
        }
        assert_eq!(wall.count(), 2, "once for each request");
    }
}

// T21, T22
#[tokio::test]
async fn a_target_that_asked_for_a_long_wait_is_not_asked_again_because_another_failed() {
    let (busy, broken) = (refusing(429, &[("retry-after", "30")]), refusing(500, &[]));
    let node = Document::of(&[&busy, &broken], "retry: { attempts: 4 }").serve();
    let response = ask_chat(node.data, "p", false).await;
    assert_eq!(response.status, 500);
    assert_eq!(busy.count(), 1, "it said when to come back");
    assert_eq!(broken.count(), 3);
}

// T21
#[tokio::test]
async fn repeats_are_within_the_retry_budget_and_reach_its_floor() {
    const REQUESTS: usize = 60;
    let wall = refusing(503, &[]);
    let node = Document::of(&[&wall], "retry: { attempts: 5 }").serve();
    let start = Instant::now();
    let asked = (0..REQUESTS).map(|_| ask_chat(node.data, "p", false));
    let answers = join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    let retries = wall.count() - REQUESTS;
    let floor = 10.0 * (1.0 + start.elapsed().as_secs_f64());
    let most = floor as usize + REQUESTS / 10;
    assert!((10 + REQUESTS / 10..=most).contains(&retries), "{retries} retries, {most} allowed");
}
