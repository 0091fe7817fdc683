//! Idle connections: used again, bounded, swept.

use std::time::{Duration, Instant};

use flotilla::upstream::{Config, Standing};

use super::{client_of, get, on_worker, read, send};
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

fn swift() -> Config {
    Config { sweep_every: Duration::from_millis(10), ..Config::default() }
}

async fn fill(upstream: &flotilla::upstream::Upstream, wall: &Wall, count: usize) {
    let origin = wall.origin();
    let sends = (0..count).map(|_| send(upstream, &origin));
    for answer in futures_util::future::join_all(sends).await {
        read(answer.expect("an answer")).await.expect("whole");
    }
}

#[test]
fn a_clean_end_leaves_the_connection_to_the_next_request() {
    for tls in [false, true] {
        let wall = Wall::start_with(tls, |attempt| match attempt.number % 2 {
            0 => Script::json(200, "ok"),
            _ => Script::sse(["a", "b"]),
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            for _ in 0..6 {
                get(&upstream, &wall.origin()).await;
            }
            assert_eq!(wall.connections(), 1);
        });
    }
}

// T32: with plain awc, sockets that the provider closed stay in CLOSE_WAIT until the next request.
#[test]
fn what_the_provider_closed_is_closed_here_too() {
    for tls in [false, true] {
        let gate = Gate::new();
        let wall = Wall::start_with(tls, {
            let gate = gate.clone();
            move |_| Script::json(200, "ok").wait(&gate).half_close()
        });
        on_worker(async {
            let upstream = client_of(&wall, swift());
            fill(&upstream, &wall, 20).await;
            assert_eq!(upstream.standing().idle, 20);
            gate.open();
            // The wall reads on after its half of the close: it sees ours.
            for attempt in wall.attempts() {
                attempt.closed().await;
            }
            eventually(DEADLINE, || upstream.standing() == Standing::default()).await;
        });
    }
}

#[test]
fn what_nobody_needs_is_closed_after_the_keep_alive() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let keep_alive = Duration::from_millis(100);
        let upstream = client_of(&wall, Config { idle_keep_alive: keep_alive, ..swift() });
        let start = Instant::now();
        fill(&upstream, &wall, 5).await;
        for attempt in wall.attempts() {
            assert!(attempt.closed().await.duration_since(start) >= keep_alive);
        }
        eventually(DEADLINE, || upstream.standing() == Standing::default()).await;
    });
}

#[test]
fn an_old_connection_is_not_used_again() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config { lifetime: Duration::ZERO, ..Config::default() });
        get(&upstream, &wall.origin()).await;
        get(&upstream, &wall.origin()).await;
        assert_eq!(wall.connections(), 2);
    });
}

#[test]
fn more_than_the_bound_are_not_kept_and_the_newest_is_used_first() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config { max_idle: 3, ..Config::default() });
        fill(&upstream, &wall, 8).await;
        assert_eq!((wall.connections(), upstream.standing().idle), (8, 3));
        for _ in 0..4 {
            get(&upstream, &wall.origin()).await;
        }
        let used: Vec<_> = wall.attempts().iter().skip(8).map(|it| it.connection).collect();
        assert!(used.iter().all(|connection| *connection == used[0]), "{used:?}");
    });
}

#[test]
fn connection_close_is_honoured() {
    let wall = Wall::always(
        Script::new()
            .send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .stall(),
    );
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        get(&upstream, &wall.origin()).await;
        wall.attempt(0).await.closed().await;
        assert_eq!(upstream.standing().idle, 0);
    });
}

#[test]
fn dropping_the_client_closes_what_is_idle() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let clone = upstream.clone();
        fill(&upstream, &wall, 3).await;
        drop(upstream);
        get(&clone, &wall.origin()).await;
        drop(clone);
        for attempt in wall.attempts() {
            attempt.closed().await;
        }
    });
}

#[test]
fn a_body_may_outlive_its_client() {
    let gate = Gate::new();
    let wall = Wall::start({
        let gate = gate.clone();
        move |_| Script::sse_head().event("a").wait(&gate).done()
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let answer = send(&upstream, &wall.origin()).await.expect("an answer");
        drop(upstream);
        gate.open();
        assert_eq!(read(answer).await, Ok("data: a\n\ndata: [DONE]\n\n".into()));
        wall.attempt(0).await.closed().await;
    });
}
