//! Clients that try to get more out of a connection than one answer for each request.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::rig::{Client, Node, PATIENCE, config};

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n";
const NEXT: &str = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

/// Longer than a client that left may go unnoticed.
const SECOND: Duration = Duration::from_secs(1);

// CONTRACT 4: the trailer is a part of the chunks' framing. What took its bare LF for an end would
// find another request where we find a trailer.
#[test]
fn ambiguous_trailers_are_refused_and_nothing_after_them_is_served() {
    let node = Node::start(config());
    for (name, end) in [
        ("bare LF in a trailer", "0\r\nx: y\n\r\n"),
        ("bare LF after a trailer", "0\r\nx: y\r\n\n"),
        ("bare LF at the end of the last trailer", "0\r\nx: y\n\n"),
        ("bare CR in a trailer", "0\r\nx: y\rz\r\n\r\n"),
    ] {
        for piece in [1, 7, usize::MAX] {
            let mut client = node.connect();
            let all = format!("{POST}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n{end}{NEXT}");
            for piece in all.as_bytes().chunks(piece.min(all.len())) {
                client.send(piece);
            }
            let answers = client.read_to_end();
            assert!(answers.starts_with("HTTP/1.1 400 "), "{name}: {answers}");
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{name}: {answers}");
        }
    }
    let good = format!(
        "{POST}connection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         2 ;a=b\r\n{{}}\r\n0\r\nx: y\r\nz:\r\n\r\n"
    );
    let answer = node.connect().send(good).answer();
    assert_eq!((answer.status, answer.body.as_str()), (200, "127.0.0.1 2 "));
}

// actix reads such a body to the end of the connection, whatever its length says: the next
// client's request behind a balancer would become a part of it.
#[test]
fn a_wish_to_upgrade_does_not_change_where_a_body_ends() {
    let node = Node::start(config());
    for length in ["content-length: 2\r\n", "content-length: 0\r\n", ""] {
        let body = if length.contains('2') { "{}" } else { "" };
        let mut client = node.connect();
        client.send(format!(
            "{POST}x-script: events\r\nupgrade: WebSocket\r\n{length}\r\n{body}{NEXT}"
        ));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{length}");
        client.socket.shutdown(std::net::Shutdown::Write).expect("open");
        assert_eq!(client.read_to_end(), "", "{length}");
    }
}

// actix's codec remembers the last request it read, not the one that is being answered.
#[test]
fn a_request_sent_ahead_changes_nothing_about_the_answer_before_it() {
    let node = Node::start(config());
    let post = format!("{POST}x-script: events\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    for next in [
        "HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ] {
        let mut client = node.connect();
        client.send(format!("{post}{next}"));
        let head = client.read_past("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{next}: {head}");
        assert!(!head.contains("connection: close"), "{next}: {head}");
        assert!(client.read_past("0\r\n\r\n").contains("data: 2\n\n"), "{next}");
        assert!(client.read_past("\r\n\r\n").contains(" 200 OK\r\n"), "{next}");
    }
    // And what comes behind a request that ends the connection is nobody's.
    let mut client = node.connect();
    let last = "HEAD /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = client.send(format!("{last}{NEXT}")).read_to_end();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.ends_with("\r\n\r\n"), "{answers}");
}

// N6: actix ends the answer that is under way.
#[test]
fn garbage_behind_a_request_does_not_hurt_its_answer() {
    let node = Node::start(config());
    for together in [true, false] {
        let mut client = node.connect();
        let post = format!("{POST}x-script: later\r\ncontent-length: 2\r\n\r\n{{}}");
        if together {
            client.send(format!("{post}nonsense\r\n\r\n"));
            node.wait_for("waiting");
        } else {
            client.send(post);
            node.wait_for("waiting");
            client.send("nonsense\r\n\r\n");
        }
        node.go();
        assert_eq!(client.answer().body, "later");
        let answers = client.read_to_end();
        assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
        assert!(answers.contains(r#""invalid_request""#), "{answers}");
    }
}

// T15: what a client sent ahead hides nothing. Plain actix does not look at the socket any more
// once it holds 128 KiB, and turns in a circle instead.
#[test]
fn a_client_that_leaves_is_noticed_however_much_it_sent_ahead() {
    let node = Node::start(config());
    for script in ["hang", "silent"] {
        let mut client = node.connect();
        client.post(script, "", "{}");
        match script {
            "hang" => node.wait_for("hanging"),
            _ => drop(client.read_past("\r\n\r\n")),
        }
        let flood = NEXT.repeat((1 << 20) / NEXT.len());
        client.socket.set_nonblocking(true).expect("a socket");
        let mut sent = 0;
        let begun = Instant::now();
        while sent < flood.len() && begun.elapsed() < SECOND {
            sent += client.socket.write(&flood.as_bytes()[sent..]).unwrap_or(0);
        }
        assert!(sent > 128 << 10, "{sent}");
        let left = Instant::now();
        drop(client);
        node.wait_for("dropped");
        assert!(left.elapsed() < SECOND, "{script}: {:?}", left.elapsed());
    }
}

// What is beyond any sense ends the connection, with the answer at hand.
#[test]
fn a_client_that_sends_too_much_ahead_gets_one_answer() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.post("later", "", "{}");
    node.wait_for("waiting");
    // More than fits into the kernel's buffers: when it is sent, most of it is read.
    client.send(NEXT.repeat((32 << 20) / NEXT.len()));
    node.go();
    let answers = client.read_to_end();
    assert!(answers.ends_with("later"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
}

#[test]
fn a_thousand_requests_sent_ahead_are_answered_one_by_one() {
    let node = Node::start(config());
    let mut client = node.connect();
    let mut writer = client.socket.try_clone().expect("a socket");
    let sender = std::thread::spawn(move || {
        for _ in 0..1000 {
            let post = format!("{POST}x-script: echo\r\ncontent-length: 2\r\n\r\n{{}}");
            writer.write_all(post.as_bytes()).expect("the node reads on");
        }
    });
    for _ in 0..1000 {
        assert_eq!(client.answer().body, "127.0.0.1 2 ");
    }
    sender.join().expect("all sent");
}

// A sender that never pauses is the only one whose clock nobody would look at.
#[test]
fn a_body_that_floods_in_after_the_answer_is_not_read_for_ever() {
    let limit = Duration::from_millis(300);
    let node = Node::start(flotilla::api::DataConfig { head_timeout: limit, ..config() });
    let mut client = node.connect();
    client.send(format!("{POST}x-script: early\r\ntransfer-encoding: chunked\r\n\r\n"));
    assert_eq!(client.answer().status, 401);
    let begun = Instant::now();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    while client.socket.write_all(chunk.as_bytes()).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still reading");
    }
    assert!(begun.elapsed() >= limit / 2);
}

// RFC 9112, 6.1: a client of HTTP/1.0 knows no chunks.
#[test]
fn a_stream_to_an_old_client_ends_with_its_connection() {
    let node = Node::start(config());
    let ask = |script: &str| {
        let head = "POST /v1/chat/completions HTTP/1.0\r\nconnection: keep-alive\r\n";
        let mut client: Client = node.connect();
        client.send(format!("{head}x-script: {script}\r\ncontent-length: 2\r\n\r\n{{}}"));
        client
    };
    let answer = ask("events").read_to_end();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(body, "data: 1\n\ndata: 2\n\n");
    // Promise 7: only a reset tells such a client that it did not get all.
    let mut client = ask("abort");
    let mut bytes = Vec::new();
    let end = client.socket.read_to_end(&mut bytes);
    assert_eq!(end.expect_err("not a clean end").kind(), std::io::ErrorKind::ConnectionReset);
    // One whose length is known keeps its connection, as it asked.
    for _ in 0..2 {
        let answer = ask("echo").answer();
        assert_eq!(answer.body, "127.0.0.1 2 ");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}
