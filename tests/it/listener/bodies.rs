//! Bodies of requests and of replies.

use super::rig::{Node, config};

#[test]
fn a_reply_that_breaks_off_shows_all_that_came_before_and_no_end() {
    let node = Node::start(config());
    let mut client = node.connect();
    let answer = client.post("abort", "", "{}").read_to_end();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("first ") && answer.contains("second"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "a clean end: {answer}");
    assert_eq!(node.event(), "dropped");
}

#[test]
fn a_reply_of_known_length_that_breaks_off_is_short() {
    let node = Node::start(config());
    let answer = node.connect().post("sized-short", "", "{}").read_to_end();
    assert!(
        answer.contains("content-length: 6\r\n") && answer.ends_with("\r\n\r\nabc"),
        "{answer}"
    );
}

#[test]
fn a_reply_of_known_length_announces_it() {
    let node = Node::start(config());
    let answer = node.connect().post("sized", "", "{}").answer();
    assert_eq!(answer.body, "abcdef");
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[test]
fn a_reply_that_never_pauses_leaves_the_worker_to_others() {
    let node = Node::start(config());
    let mut greedy = node.connect();
    greedy.post("crumbs", "", "{}").read_past("\r\n\r\n");
    let reader = std::thread::spawn(move || {
        // Reads as fast as it can, until the node is gone.
        let mut piece = [0; 64 << 10];
        while std::io::Read::read(&mut greedy.socket, &mut piece).is_ok_and(|n| n > 0) {}
    });
    let mut client = node.connect();
    for _ in 0..100 {
        let begun = std::time::Instant::now();
        assert_eq!(client.get("/livez", "").status, 200);
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }
    drop(node);
    reader.join().expect("it ends with the node");
}

#[test]
fn events_are_not_to_be_collected_on_their_way() {
    let node = Node::start(config());
    let mut client = node.connect();
    let head = client.post("events", "", "{}").read_past("\r\n\r\n");
    for header in ["x-accel-buffering: no", "cache-control: no-cache", "transfer-encoding: chunked"]
    {
        assert!(head.contains(header), "{header} is missing in {head}");
    }
    assert!(client.read_past("0\r\n\r\n").contains("data: 2\n\n"));
    // The connection goes on.
    assert_eq!(client.post("echo", "", "{}").answer().status, 200);
}

#[test]
fn a_client_that_expects_to_be_asked_on_is_asked_on() {
    let node = Node::start(config());
    let mut client = node.connect();
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_past("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = client.send("{}").answer();
    assert_eq!((answer.status, answer.body.as_str()), (200, "127.0.0.1 2 "));
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let node = Node::start(config());
    let mut client = node.connect();
    for body in ["1", "22", "333"] {
        client.post("echo", "", body);
    }
    for len in 1..=3 {
        assert_eq!(client.answer().body, format!("127.0.0.1 {len} "));
    }
}

#[test]
fn a_large_body_passes_in_pieces() {
    let node = Node::start(config());
    let body = "x".repeat(8 << 20);
    let answer = node.connect().post("echo", "", &body).answer();
    assert_eq!(answer.body, format!("127.0.0.1 {} ", body.len()));
}

#[test]
fn a_client_still_sending_gets_the_answer_that_came_early() {
    let node = Node::start(config());
    let mut client = node.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-script: early\r\n\
                content-length: 33554432\r\n\r\n";
    client.send(head);
    for _ in 0..32 {
        client.send(vec![b'x'; 1 << 20]);
    }
    assert_eq!(client.answer().status, 401);
}
