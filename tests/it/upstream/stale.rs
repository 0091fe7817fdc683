//! A connection that the provider closed while it was idle.

use std::time::Duration;

use flotilla::upstream::{Config, SendError};

use super::{client_of, get, on_worker, read, send};
use crate::support::wall::{Script, Wall};

/// How a provider closes a connection on which a request just arrived.
const LEAVES: [fn(Script) -> Script; 3] = [Script::close, Script::cut, Script::reset];

fn ok() -> Script {
    Script::json(200, "ok")
}

// T32: plain awc fails; nothing tells whether the connection had been used before.
#[test]
fn a_stale_connection_is_retried_once_on_a_fresh_one() {
    for tls in [false, true] {
        for leave in LEAVES {
            let wall = Wall::start_with(tls, move |attempt| match attempt.number {
                1 => leave(Script::new()),
                _ => ok(),
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                assert_eq!(get(&upstream, &wall.origin()).await, "ok");
                assert_eq!(get(&upstream, &wall.origin()).await, "ok");
                let on: Vec<_> = wall.attempts().iter().map(|it| it.connection).collect();
                assert_eq!(on, [0, 0, 1]);
                assert_eq!(wall.attempts()[2].body(), "{}", "the body was sent again");
            });
        }
    }
}

#[test]
fn a_fresh_connection_is_never_retried() {
    for tls in [false, true] {
        for leave in LEAVES {
            let wall = Wall::start_with(tls, move |attempt| match attempt.number {
                0 => ok(),
                _ => leave(Script::new()),
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                assert_eq!(get(&upstream, &wall.origin()).await, "ok");
                let outcome = send(&upstream, &wall.origin()).await;
                assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
                assert_eq!(wall.count(), 3);
                // Nothing is idle now: the first try is on a fresh connection.
                let outcome = send(&upstream, &wall.origin()).await;
                assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
                assert_eq!(wall.count(), 4);
            });
        }
    }
}

// What a provider worked on for a while is not asked for twice behind everybody's back: the retry
// is neither counted nor bounded by anyone else.
#[test]
fn a_connection_that_breaks_later_is_not_stale() {
    let thinking = Duration::from_millis(200);
    for leave in LEAVES {
        let wall = Wall::start(move |attempt| match attempt.number {
            0 => ok(),
            _ => leave(Script::new().pause(thinking)),
        });
        on_worker(async {
            let config = Config { stale_within: thinking / 2, ..Config::default() };
            let upstream = client_of(&wall, config);
            assert_eq!(get(&upstream, &wall.origin()).await, "ok");
            let outcome = send(&upstream, &wall.origin()).await;
            assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
            let on: Vec<_> = wall.attempts().iter().map(|it| it.connection).collect();
            assert_eq!(on, [0, 0]);
        });
    }
}

#[test]
fn the_retry_takes_no_other_idle_connection() {
    let wall = Wall::start(|attempt| match attempt.number {
        5 => Script::new().close(),
        _ => ok(),
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let origin = wall.origin();
        let five = (0..5).map(|_| send(&upstream, &origin));
        for answer in futures_util::future::join_all(five).await {
            read(answer.expect("an answer")).await.expect("whole");
        }
        assert_eq!((wall.connections(), upstream.standing().idle), (5, 5));
        assert_eq!(get(&upstream, &origin).await, "ok");
        assert_eq!(wall.attempt(6).await.connection, 5, "a connection of its own");
    });
}

#[test]
fn one_byte_of_an_answer_forbids_the_retry() {
    for tls in [false, true] {
        for byte in ["H", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
            let wall = Wall::start_with(tls, move |attempt| match attempt.number {
                0 => ok(),
                _ => Script::new().send(byte).close(),
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                assert_eq!(get(&upstream, &wall.origin()).await, "ok");
                let outcome = send(&upstream, &wall.origin()).await;
                assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
                assert_eq!(wall.count(), 2);
            });
        }
    }
}

#[test]
fn a_big_body_is_retried_whole() {
    let big = vec![b'x'; 8 * 1024 * 1024];
    let wall = Wall::start_early(false, |attempt| match attempt.number {
        1 => Script::new().reset(),
        _ => Script::new().read().send(crate::support::wall::answer(200, &[], "ok")),
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        assert_eq!(get(&upstream, &wall.origin()).await, "ok");
        let call = super::call(actix_http::Method::POST, big.clone());
        let answer = super::in_time(upstream.send(&wall.origin(), call)).await.expect("an answer");
        assert_eq!(read(answer).await, Ok("ok".into()));
        assert_eq!(wall.attempts().len(), 3);
        assert!(wall.attempts()[2].body() == big);
    });
}

// The race that no look at the socket can win: the provider closes right behind its answer.
#[test]
fn a_close_right_behind_an_answer_fails_no_request() {
    let wall = Wall::always(ok().close());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        for _ in 0..300 {
            assert_eq!(get(&upstream, &wall.origin()).await, "ok");
        }
    });
}
