//! No request ever receives another's answer, whatever the provider sends.

use std::time::Duration;

use actix_http::Method;
use flotilla::upstream::Config;

use super::{call, client_of, get, in_time, on_worker, read, send};
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Gate, Script, Wall, answer};

/// The answer to attempt `n`, which names it.
fn own_answer(number: usize) -> bytes::Bytes {
    answer(200, &[], format!("answer {number}"))
}

// T32: plain awc takes the 103 for the answer, pools the socket and gives the answer to the next.
#[test]
fn an_informational_head_is_not_the_answer() {
    for tls in [false, true] {
        for status in [100, 102, 103] {
            let (sent, gate) = (Gate::new(), Gate::new());
            let wall = Wall::start_with(tls, {
                let (sent, gate) = (sent.clone(), gate.clone());
                move |attempt| {
                    let interim = format!("HTTP/1.1 {status} Early\r\nLink: </x>\r\n\r\n");
                    let script = Script::new().send(&interim).send(interim).open(&sent);
                    script.wait(&gate).send(own_answer(attempt.number))
                }
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                let origin = wall.origin();
                let mut first = Box::pin(upstream.send(&origin, call(Method::POST, "{}")));
                // However long the way takes: before this, there is nothing to be mistaken.
                tokio::select! {
                    answer = &mut first => unreachable!("{answer:?}"),
                    () = sent.opened() => {}
                }
                let early = tokio::time::timeout(Duration::from_millis(50), first);
                assert!(early.await.is_err(), "an informational head was taken for the answer");
                gate.open();
                assert_eq!(get(&upstream, &origin).await, "answer 1");
                assert_eq!(get(&upstream, &origin).await, "answer 2");
                assert_eq!(wall.connections(), 2, "the second was used again");
            });
        }
    }
}

#[test]
fn an_informational_head_split_anywhere_is_skipped() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let wall = Wall::start(move |attempt| {
        let bytes = [interim.as_bytes(), &own_answer(attempt.number)].concat();
        Script::new().split(bytes, &[attempt.number + 1])
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        for number in 0..interim.len() + 40 {
            assert_eq!(get(&upstream, &wall.origin()).await, format!("answer {number}"));
        }
        assert_eq!(wall.connections(), 1, "one connection served all");
    });
}

// T32: plain awc gives an empty body and pools the socket.
#[test]
fn a_body_that_ends_with_its_connection_is_whole_and_its_connection_is_gone() {
    for tls in [false, true] {
        for version in ["1.0", "1.1"] {
            let wall = Wall::start_with(tls, move |attempt| {
                Script::new()
                    .send(format!("HTTP/{version} 200 OK\r\nx: y\r\n\r\nanswer "))
                    .pause(Duration::from_millis(5))
                    .send(attempt.number.to_string())
                    .close()
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                assert_eq!(get(&upstream, &wall.origin()).await, "answer 0");
                assert_eq!(get(&upstream, &wall.origin()).await, "answer 1");
                assert_eq!(wall.connections(), 2);
                assert_eq!(upstream.standing().idle, 0);
            });
        }
    }
}

#[test]
fn bytes_behind_an_answer_reach_nobody() {
    let evil = answer(200, &[], "evil");
    for tls in [false, true] {
        for cut in [None, Some(10), Some(evil.len() - 1)] {
            let gate = Gate::new();
            let wall = Wall::start_with(tls, {
                let (gate, evil) = (gate.clone(), evil.clone());
                move |attempt| {
                    let own = own_answer(attempt.number);
                    let (with, later) = evil.split_at(cut.unwrap_or(evil.len()));
                    Script::new().send([&own, with].concat()).wait(&gate).send(later)
                }
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                assert_eq!(get(&upstream, &wall.origin()).await, "answer 0");
                assert_eq!(upstream.standing().idle, 0, "a connection out of step was kept");
                gate.open();
                assert_eq!(get(&upstream, &wall.origin()).await, "answer 1");
            });
        }
    }
}

// The codec reads 8 KiB at a time. What TLS decrypted beyond that is neither in the kernel nor in
// sight of the codec.
#[test]
fn bytes_behind_an_answer_that_fills_the_buffer_reach_nobody() {
    for tls in [false, true] {
        let wall = Wall::start_with(tls, |attempt| match attempt.number {
            0 => {
                let body = "x".repeat(8192 - answer(200, &[], "x".repeat(8000)).len() + 8000);
                let own = answer(200, &[], body);
                assert_eq!(own.len(), 8192);
                Script::new().send([own, answer(200, &[], "evil")].concat())
            }
            number => Script::new().send(own_answer(number)),
        });
        on_worker(async {
            let config = Config { sweep_every: Duration::from_secs(3600), ..Config::default() };
            let upstream = client_of(&wall, config);
            assert!(get(&upstream, &wall.origin()).await.iter().all(|byte| *byte == b'x'));
            assert_eq!(get(&upstream, &wall.origin()).await, "answer 1");
            assert_eq!(wall.connections(), 2);
        });
    }
}

#[test]
fn bytes_that_come_while_a_connection_is_idle_reach_nobody() {
    for tls in [false, true] {
        let (gate, sent) = (Gate::new(), Gate::new());
        let wall = Wall::start_with(tls, {
            let (gate, sent) = (gate.clone(), sent.clone());
            move |attempt| {
                let script = Script::new().send(own_answer(attempt.number)).wait(&gate);
                script.send(answer(200, &[], "evil")).open(&sent).stall()
            }
        });
        on_worker(async {
            // Not the sweep, but taking the connection, is what must notice.
            let config = Config { sweep_every: Duration::from_secs(3600), ..Config::default() };
            let upstream = client_of(&wall, config);
            assert_eq!(get(&upstream, &wall.origin()).await, "answer 0");
            assert_eq!(upstream.standing().idle, 1);
            gate.open();
            // Until it is here, any client would take the connection for usable.
            sent.opened().await;
            assert_eq!(get(&upstream, &wall.origin()).await, "answer 1");
            assert_eq!(wall.connections(), 2);
        });
    }
}

// T32: plain awc waits for a body that never comes, or reads the next answer as one.
#[test]
fn answers_without_a_body_do_not_hang_and_keep_their_connection() {
    for tls in [false, true] {
        for head in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 204 No Content\r\nconnection: keep-alive\r\n\r\n",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
        ] {
            let wall = Wall::start_with(tls, move |attempt| match attempt.number {
                0 => Script::new().send(head),
                number => Script::new().send(own_answer(number)),
            });
            on_worker(async {
                let upstream = client_of(&wall, Config::default());
                let answer = send(&upstream, &wall.origin()).await.expect("an answer");
                let length = answer.headers.get("content-length");
                assert_eq!(length.is_some(), head.contains("content-length"), "{head:?}");
                assert!(answer.headers.iter().all(|(name, _)| !name.as_str().starts_with('x')));
                assert_eq!(read(answer).await, Ok("".into()), "{head:?}");
                assert_eq!(get(&upstream, &wall.origin()).await, "answer 1", "{head:?}");
                assert_eq!(wall.connections(), 1, "{head:?}");
            });
        }
    }
}

#[test]
fn the_answer_to_head_has_no_body_whatever_it_announces() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let wall = Wall::start(move |attempt| match attempt.method.as_str() {
            "HEAD" => Script::new().send(head),
            _ => Script::new().send(own_answer(attempt.number)),
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let origin = wall.origin();
            let sent = upstream.send(&origin, call(Method::HEAD, ""));
            let answer = in_time(sent).await.expect("an answer");
            assert_eq!(read(answer).await, Ok("".into()), "{head:?}");
            assert_eq!(get(&upstream, &wall.origin()).await, "answer 1", "{head:?}");
            assert_eq!(wall.connections(), 1, "{head:?}");
        });
    }
}

// What a provider sends where no body may be is the next answer's beginning to any client that
// goes by the framing alone.
#[test]
fn a_body_that_must_not_be_reaches_nobody() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (method, head) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n"),
        (Method::POST, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::POST, "HTTP/1.1 304 Not Modified\r\ncontent-length: 43\r\n\r\n"),
        (Method::POST, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        for tls in [false, true] {
            let (gate, sent) = (Gate::new(), Gate::new());
            let wall = Wall::start_with(tls, {
                let (gate, sent) = (gate.clone(), sent.clone());
                move |attempt| match attempt.number {
                    // With its head, or behind it.
                    0 => Script::new().send([head, evil].concat()),
                    1 => Script::new().send(head).wait(&gate).send(evil).open(&sent).stall(),
                    number => Script::new().send(own_answer(number)),
                }
            });
            on_worker(async {
                let config = Config { sweep_every: Duration::from_secs(3600), ..Config::default() };
                let upstream = client_of(&wall, config);
                let origin = wall.origin();
                for _ in 0..2 {
                    let answer = in_time(upstream.send(&origin, call(method.clone(), ""))).await;
                    assert_eq!(read(answer.expect("an answer")).await, Ok("".into()), "{head:?}");
                }
                gate.open();
                sent.opened().await;
                assert_eq!(get(&upstream, &origin).await, "answer 2", "{head:?}");
                assert_eq!(wall.connections(), 3, "{head:?}");
            });
        }
    }
}

#[test]
fn an_upgrade_nobody_asked_for_does_not_hide_the_body() {
    let head = "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\ncontent-length: 5\r\n\r\nhello";
    let wall = Wall::always(Script::new().send(head));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        assert_eq!(get(&upstream, &wall.origin()).await, "hello");
        assert_eq!(get(&upstream, &wall.origin()).await, "hello");
    });
}

#[test]
fn two_requests_at_once_share_no_connection() {
    let gate = Gate::new();
    let wall = Wall::start({
        let gate = gate.clone();
        move |attempt| Script::new().wait(&gate).send(answer(200, &[], attempt.body()))
    });
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let origin = wall.origin();
        let sends = (0..20).map(|number| {
            let (upstream, origin) = (upstream.clone(), origin.clone());
            actix_rt::spawn(async move {
                let sent = upstream.send(&origin, call(Method::POST, number.to_string()));
                let own = read(in_time(sent).await.expect("an answer")).await;
                assert_eq!(own, Ok(number.to_string().into()));
            })
        });
        let sends: Vec<_> = sends.collect();
        eventually(DEADLINE, || wall.count() == 20).await;
        gate.open();
        for send in sends {
            send.await.expect("its own answer");
        }
        assert_eq!(wall.connections(), 20);
    });
}
