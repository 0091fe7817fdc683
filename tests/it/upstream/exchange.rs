//! What goes out and what comes in, on a good day.

use std::time::Duration;

use actix_http::Method;
use actix_http::header::{HeaderName, HeaderValue};
use flotilla::upstream::{Call, Config, SendError};
use futures_util::StreamExt;

use super::{call, client_of, get, in_time, on_worker, read, send};
use crate::support::wall::{Gate, Script, Wall, answer, chunk};

fn with_headers(pairs: &[(&'static str, &'static str)]) -> Call {
    let mut call = call(Method::POST, "{}");
    for (name, value) in pairs {
        call.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    call
}

#[test]
fn a_request_goes_out_as_it_was_given_and_no_more() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let given = with_headers(&[
            ("authorization", "Bearer x"),
            ("x-many", "1"),
            ("x-many", "2"),
            // None of these is the caller's to say.
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("content-length", "99"),
            ("expect", "100-continue"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("host", "evil.example"),
        ]);
        let answer = in_time(upstream.send(&wall.origin(), given)).await.expect("an answer");
        assert_eq!(read(answer).await, Ok("ok".into()));
        let attempt = wall.attempt(0).await;
        assert_eq!(
            (attempt.method.as_str(), attempt.path.as_str()),
            ("POST", "/v1/chat/completions?a=b")
        );
        assert_eq!(attempt.body(), "{}");
        assert_eq!(attempt.header("host"), Some(wall.address().to_string().as_str()));
        let mut names: Vec<_> = attempt.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        // No user-agent, no accept-encoding; the date is the client's own.
        assert_eq!(names, ["authorization", "content-length", "date", "host", "x-many", "x-many"]);
    });
}

#[test]
fn a_request_without_a_body_announces_none() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        for (method, length) in [(Method::GET, None), (Method::POST, Some("0"))] {
            let number = wall.count();
            let answer = in_time(upstream.send(&wall.origin(), call(method, ""))).await;
            read(answer.expect("an answer")).await.expect("whole");
            assert_eq!(wall.attempt(number).await.header("content-length"), length);
        }
    });
}

#[test]
fn status_and_headers_come_as_they_are() {
    let headers =
        [("retry-after", "3"), ("set-cookie", "a"), ("set-cookie", "b"), ("location", "/x")];
    let redirect = Script::new().send(answer(307, &headers, "moved"));
    let wall = Wall::always(redirect);
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let answer = send(&upstream, &wall.origin()).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), 307, "a redirect is not followed");
        assert_eq!(answer.headers.get_all("set-cookie").count(), 2);
        assert_eq!(answer.headers.get("content-length").map(|it| it.as_bytes()), Some(&b"5"[..]));
        assert_eq!(read(answer).await, Ok("moved".into()));
        assert_eq!(wall.count(), 1);
    });
}

#[test]
fn compressed_bytes_stay_compressed() {
    let zipped = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let wall =
        Wall::always(Script::new().send(answer(200, &[("content-encoding", "gzip")], zipped)));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        assert_eq!(get(&upstream, &wall.origin()).await.as_ref(), zipped);
    });
}

// T18, the upstream part.
#[test]
fn an_answer_split_anywhere_is_the_same_answer() {
    for tls in [false, true] {
        let chunked = [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(),
            &chunk("hello "),
            &chunk("world"),
            b"0\r\nx-trailer: y\r\n\r\n",
        ]
        .concat();
        let len = chunked.len();
        let wall = Wall::start_with(tls, move |attempt| match attempt.number {
            0 => Script::new().bytewise(&chunked),
            number => Script::new().split(&chunked, &[number]),
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            for number in 0..len {
                assert_eq!(get(&upstream, &wall.origin()).await, "hello world", "{number}");
            }
            assert_eq!(wall.connections(), 1);
        });
    }
}

#[test]
fn a_piece_is_given_on_as_soon_as_it_comes() {
    let gates = [Gate::new(), Gate::new()];
    let wall = Wall::start({
        let gates = gates.clone();
        move |_| {
            let script = Script::sse_head().wait(&gates[0]).event("a").wait(&gates[1]);
            script.event("b").done()
        }
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let mut answer = send(&upstream, &wall.origin()).await.expect("the head comes first");
        let nothing = tokio::time::timeout(Duration::from_millis(30), answer.body.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        gates[0].open();
        assert_eq!(in_time(answer.body.next()).await, Some(Ok("data: a\n\n".into())));
        gates[1].open();
        assert_eq!(read(answer).await, Ok("data: b\n\ndata: [DONE]\n\n".into()));
    });
}

#[test]
fn tiny_pieces_that_are_ready_come_as_one() {
    const COUNT: usize = 2_000;
    let bytes = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        chunk("x").repeat(COUNT),
        b"0\r\n\r\n".to_vec(),
    ]
    .concat();
    let wall = Wall::always(Script::new().send(bytes));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let mut answer = send(&upstream, &wall.origin()).await.expect("an answer");
        wall.attempt(0).await;
        let (mut pieces, mut len) = (0, 0);
        while let Some(piece) = in_time(answer.body.next()).await {
            pieces += 1;
            len += piece.expect("whole").len();
        }
        assert_eq!(len, COUNT);
        assert!(pieces < COUNT / 50, "{pieces} pieces");
    });
}

#[test]
fn pieces_before_a_break_are_not_lost() {
    let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let wall = Wall::always(Script::new().send(start).send(chunk("a").repeat(10)).close());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let answer = send(&upstream, &wall.origin()).await.expect("a head");
        let (so_far, error) = read(answer).await.expect_err("not whole");
        assert_eq!(
            (so_far, error),
            ("aaaaaaaaaa".into(), flotilla::upstream::BodyError::Truncated)
        );
    });
}

#[test]
fn a_path_that_cannot_be_sent_is_refused_before_anything_is() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        for path in ["/a b", "/a\r\nx: y", "/\u{0}"] {
            let call = Call { path: path.into(), ..call(Method::GET, "") };
            let outcome = in_time(upstream.send(&wall.origin(), call)).await;
            assert!(matches!(outcome, Err(SendError::Malformed)), "{path:?}: {outcome:?}");
        }
        assert_eq!(wall.connections(), 0);
    });
}
