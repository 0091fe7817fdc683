//! The wall does what its scripts say; tests that rely on it rely on this.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::*;

const REQUEST: &[u8] =
    b"POST /x?y HTTP/1.1\r\nHost: h\r\nContent-Length: 13\r\n\r\n{\"model\":\"a\"}";

fn dial(wall: &Wall) -> TcpStream {
    let tcp = TcpStream::connect(wall.address()).expect("the wall listens");
    tcp.set_read_timeout(Some(DEADLINE)).expect("a socket");
    tcp
}

fn read_some(tcp: &mut TcpStream) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let len = tcp.read(&mut buffer).expect("bytes");
    buffer[..len].to_vec()
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

#[test]
fn a_sequence_is_played_over_one_connection_and_its_last_script_repeats() {
    let wall = Wall::sequence([Script::json(500, "a"), Script::json(200, "b")]);
    let mut tcp = dial(&wall);
    for (status, body) in [("500", "a"), ("200", "b"), ("200", "b")] {
        tcp.write_all(REQUEST).expect("sent");
        let answer = String::from_utf8(read_some(&mut tcp)).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(body));
    }
    assert_eq!((wall.count(), wall.connections()), (3, 1));
}

#[test]
fn an_attempt_is_logged_with_all_it_had() {
    let start = Instant::now();
    let wall = Wall::always(Script::json(200, "ok"));
    let mut tcp = dial(&wall);
    tcp.write_all(REQUEST).expect("sent");
    tcp.write_all(b"POST /z HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    tcp.write_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").expect("sent");
    block_on(async {
        let attempt = wall.attempt(0).await;
        assert_eq!((attempt.method.as_str(), attempt.path.as_str()), ("POST", "/x?y"));
        assert_eq!((attempt.header("HOST"), attempt.header("x")), (Some("h"), None));
        assert_eq!(attempt.json()["model"], "a");
        assert!(attempt.at >= start && attempt.closed_at().is_none());
        assert_eq!(wall.attempt(1).await.body(), "abcde");
        drop(tcp);
        assert!(attempt.closed().await >= attempt.at && attempt.closed_at().is_some());
    });
}

#[test]
fn split_pieces_are_read_one_by_one() {
    let wall = Wall::always(Script::new().split("abcdef", &[1, 4]));
    let mut tcp = dial(&wall);
    tcp.write_all(REQUEST).expect("sent");
    assert_eq!(read_some(&mut tcp), b"a");
    assert_eq!(read_some(&mut tcp), b"bcd");
    assert_eq!(read_some(&mut tcp), b"ef");
}

#[test]
fn a_gate_holds_until_it_is_opened() {
    let gate = Gate::new();
    let wall = Wall::always(Script::new().send("a").wait(&gate).send("b"));
    let mut tcp = dial(&wall);
    tcp.write_all(REQUEST).expect("sent");
    assert_eq!(read_some(&mut tcp), b"a");
    tcp.set_read_timeout(Some(Duration::from_millis(30))).expect("a socket");
    assert_eq!(tcp.read(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    tcp.set_read_timeout(Some(DEADLINE)).expect("a socket");
    gate.open();
    assert_eq!(read_some(&mut tcp), b"b");
}

#[test]
fn closes_and_resets_differ() {
    for (script, reset) in [(Script::new().close(), false), (Script::new().reset(), true)] {
        let wall = Wall::always(script);
        let mut tcp = dial(&wall);
        tcp.write_all(REQUEST).expect("sent");
        match tcp.read(&mut [0]) {
            Ok(0) => assert!(!reset),
            outcome => assert!(reset && outcome.is_err()),
        }
    }
}

#[test]
fn a_wall_ends_with_its_value() {
    let wall = Wall::always(Script::new().freeze());
    let mut tcp = dial(&wall);
    tcp.write_all(REQUEST).expect("sent");
    block_on(wall.attempt(0));
    drop(wall);
    assert!(matches!(tcp.read(&mut [0]), Ok(0) | Err(_)));
}
