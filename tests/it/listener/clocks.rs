//! Clients that are slow, silent or gone.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flotilla::domain::Phase;

use super::rig::{Client, Node, PATIENCE, config};

const SHORT: Duration = Duration::from_millis(300);

fn quick_heads() -> Node {
    Node::start(flotilla::api::DataConfig { head_timeout: SHORT, ..config() })
}

/// Sends one byte after another until the connection closes; what was answered, and how long it
/// took.
fn drip(client: &mut Client) -> (String, Duration) {
    let begun = Instant::now();
    client.socket.set_read_timeout(Some(SHORT / 10)).expect("a socket");
    let mut answer = String::new();
    for byte in "POST /v1/chat/completions HTTP/1.1\r\nx-long: ".bytes().chain([b'x'].repeat(400)) {
        assert!(begun.elapsed() < PATIENCE, "still open after {answer:?}");
        client.send([byte]);
        let mut piece = [0; 1024];
        match std::io::Read::read(&mut client.socket, &mut piece) {
            Ok(0) => break,
            Ok(n) => answer.push_str(std::str::from_utf8(&piece[..n]).expect("text")),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => {}
        }
    }
    (answer, begun.elapsed())
}

#[test]
fn a_first_head_that_is_dripped_is_ended_with_408() {
    let node = quick_heads();
    let (answer, took) = drip(&mut node.connect());
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!(answer.contains("x-flotilla-request-id: "), "{answer}");
    assert!((SHORT..SHORT * 10).contains(&took), "{took:?}");
}

#[test]
fn a_second_head_that_is_dripped_is_ended_with_408() {
    let node = quick_heads();
    let mut client = node.connect();
    assert_eq!(client.post("echo", "", "{}").answer().status, 200);
    let (answer, took) = drip(&mut client);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!((SHORT..SHORT * 10).contains(&took), "{took:?}");
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let node = quick_heads();
    let begun = Instant::now();
    assert_eq!(node.connect().read_to_end(), "");
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn an_unused_connection_is_closed_after_the_keep_alive_time() {
    let node = Node::start(flotilla::api::DataConfig { keep_alive: SHORT, ..config() });
    let mut client = node.connect();
    client.post("echo", "", "{}").answer();
    let begun = Instant::now();
    assert_eq!(client.read_to_end(), "");
    assert!((SHORT / 2..SHORT * 10).contains(&begun.elapsed()));
}

#[test]
fn a_request_that_takes_longer_than_every_clock_is_left_alone() {
    let node = Node::start(flotilla::api::DataConfig {
        head_timeout: SHORT / 3,
        keep_alive: SHORT / 3,
        write_stall: SHORT / 3,
        ..config()
    });
    let mut slow = node.connect();
    slow.send("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{");
    // Other connections come and go while the clocks run out many times over.
    let begun = Instant::now();
    while begun.elapsed() < SHORT * 2 {
        assert_eq!(node.connect().read_to_end(), "");
    }
    assert_eq!(slow.send("}").answer().status, 200);
}

#[test]
fn a_client_that_reads_nothing_of_its_answer_is_let_go() {
    let node = Node::start(flotilla::api::DataConfig { write_stall: SHORT, ..config() });
    let mut client = node.connect();
    let begun = Instant::now();
    client.post("flood", "", "{}");
    assert_eq!(node.event(), "dropped");
    assert!(begun.elapsed() >= SHORT);
}

// T15, the part of the listener.
#[test]
fn a_client_that_leaves_ends_its_request_in_every_phase() {
    let node = Node::start(config());
    for script in ["hang", "silent", "flood"] {
        for half in [false, true] {
            let mut client = node.connect();
            client.post(script, "", "{}");
            match script {
                "hang" => assert_eq!(node.event(), "hanging"),
                _ => drop(client.read_past("\r\n\r\n")),
            }
            let begun = Instant::now();
            // What is left of a client that only says that it sends no more.
            let rest = half.then_some(client.socket.try_clone().expect("a socket"));
            client.socket.shutdown(Shutdown::Write).expect("open");
            drop(client);
            assert_eq!(node.event(), "dropped", "{script}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{script}");
            drop(rest);
        }
    }
}

#[test]
fn a_body_that_is_still_sent_after_the_answer_is_not_read_for_ever() {
    let node = quick_heads();
    let mut client = node.connect();
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-script: early\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
    );
    assert_eq!(client.answer().status, 401);
    let begun = Instant::now();
    client.socket.set_read_timeout(Some(SHORT / 10)).expect("a socket");
    loop {
        assert!(begun.elapsed() < PATIENCE, "still reading");
        client.send("1\r\nx\r\n");
        let mut piece = [0; 64];
        match std::io::Read::read(&mut client.socket, &mut piece) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            _ => {}
        }
    }
    assert!(begun.elapsed() >= SHORT / 2);
}

#[test]
fn while_draining_every_answer_closes_its_connection_and_readiness_is_gone() {
    let node = Node::start(config());
    let mut client = node.connect();
    assert_eq!(client.get("/readyz", "").body, "ready\n");
    assert_eq!(client.post("echo", "", "{}").answer().header("connection"), None);

    node.life.advance(Phase::Draining);
    let answer = client.post("echo", "", "{}").answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(client.read_to_end(), "");
    let answer = node.connect().get("/readyz", "");
    assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
    assert_eq!(node.connect().get("/livez", "").status, 200);
}

#[test]
fn a_graceful_stop_lets_a_request_answer_and_closes_what_is_idle() {
    let node = Node::start(config());
    let mut idle = node.connect();
    idle.get("/livez", "");
    let mut busy = node.connect();
    busy.send("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{");
    let mut streaming = node.connect();
    streaming.post("silent", "", "").read_past("\r\n\r\n");

    drop(node.handle.stop(true));
    assert_eq!(idle.read_to_end(), "");
    refused(node.addr);
    let answer = busy.send("}").answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(streaming);
    node.ended.recv_timeout(PATIENCE).expect("the server ends once nothing is in flight");
}

/// Waits until nobody listens there.
fn refused(addr: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(addr).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still listening");
        std::thread::yield_now();
    }
}
