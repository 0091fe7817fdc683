//! Bounds per provider, and nothing that one provider does to another.

use std::time::{Duration, Instant};

use actix_http::Method;
use flotilla::upstream::{Config, SendError};
use futures_util::StreamExt;

use super::{call, client_of, get, in_time, on_worker, read, send};
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

// T32: plain awc has 100 permits for all providers together.
#[test]
fn a_hundred_and_fifty_streams_to_one_provider_delay_no_other() {
    let gate = Gate::new();
    let busy = Wall::start({
        let gate = gate.clone();
        move |_| Script::sse_head().event("a").wait(&gate).done()
    });
    let other = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&busy, Config { max_in_flight: 150, ..Config::default() });
        let origin = busy.origin();
        let streams = futures_util::future::join_all((0..150).map(|_| send(&upstream, &origin)));
        let streams: Vec<_> = streams.await.into_iter().map(|it| it.expect("a head")).collect();
        assert_eq!(upstream.standing().in_flight, 150);

        let start = Instant::now();
        assert_eq!(get(&upstream, &other.origin()).await, "ok");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());

        // The bound of the busy one is its own, and a body that ends gives its place back.
        let outcome = send(&upstream, &origin).await;
        assert!(matches!(outcome, Err(SendError::Busy)), "{outcome:?}");
        gate.open();
        for stream in streams {
            assert_eq!(read(stream).await, Ok("data: a\n\ndata: [DONE]\n\n".into()));
        }
        assert_eq!(upstream.standing().in_flight, 0);
        get(&upstream, &origin).await;
    });
}

#[test]
fn every_way_to_end_gives_the_place_back() {
    let wall = Wall::start(|attempt| match attempt.number {
        0 => Script::new().close(),
        1 | 3 => Script::sse_head().event("a").stall(),
        2 => Script::new().stall(),
        _ => Script::json(200, "ok"),
    });
    on_worker(async {
        let upstream = client_of(&wall, Config { max_in_flight: 1, ..Config::default() });
        let origin = wall.origin();
        let failed = send(&upstream, &origin).await;
        assert!(matches!(failed, Err(SendError::Closed)), "{failed:?}");
        drop(send(&upstream, &origin).await.expect("a head"));
        let mut waiting = Box::pin(upstream.send(&origin, call(Method::POST, "{}")));
        tokio::select! {
            answer = &mut waiting => unreachable!("this one never answers: {answer:?}"),
            _ = wall.attempt(2) => {}
        }
        drop(waiting);
        let answer = send(&upstream, &origin).await.expect("a head");
        let busy = send(&upstream, &origin).await;
        assert!(matches!(busy, Err(SendError::Busy)), "{busy:?}");
        drop(answer);
        assert_eq!(get(&upstream, &origin).await, "ok");
        assert_eq!(upstream.standing().in_flight, 0);
    });
}

// T15, the upstream part.
#[test]
fn dropping_a_request_or_a_body_closes_its_connection_at_once() {
    for tls in [false, true] {
        let wall = Wall::start_with(tls, |attempt| match attempt.number {
            0 => Script::new().stall(),
            1 => Script::sse_head().event("a").stall(),
            _ => Script::sse_head().stall(),
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let origin = wall.origin();

            let mut waiting = Box::pin(upstream.send(&origin, call(Method::POST, "{}")));
            let came = tokio::select! {
                answer = &mut waiting => unreachable!("{answer:?}"),
                attempt = wall.attempt(0) => attempt,
            };
            let dropped = Instant::now();
            drop(waiting);
            assert!(came.closed().await.duration_since(dropped) < Duration::from_secs(1));

            let mut answer = send(&upstream, &origin).await.expect("a head");
            in_time(answer.body.next()).await.expect("a piece").expect("whole");
            let dropped = Instant::now();
            drop(answer);
            let closed = wall.attempt(1).await.closed().await;
            assert!(closed.duration_since(dropped) < Duration::from_secs(1));

            drop(send(&upstream, &origin).await.expect("a head"));
            wall.attempt(2).await.closed().await;
            assert_eq!(upstream.standing().idle, 0);
        });
    }
}

// T15, the upstream part: a request that is still being sent.
#[test]
fn dropping_an_upload_closes_its_connection_at_once() {
    let gate = Gate::new();
    let wall = Wall::start_early(false, {
        let gate = gate.clone();
        move |_| Script::new().wait_unread(&gate).stall()
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let origin = wall.origin();
        let mut sending = Box::pin(upstream.send(&origin, call(Method::POST, vec![0; 16 << 20])));
        tokio::select! {
            answer = &mut sending => unreachable!("{answer:?}"),
            _ = wall.attempt(0) => {}
        }
        drop(sending);
        gate.open();
        wall.attempt(0).await.closed().await;
        eventually(DEADLINE, || upstream.standing().in_flight == 0).await;
    });
}
