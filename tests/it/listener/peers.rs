//! Who the client is, behind balancers.

use std::time::Duration;

use flotilla::api::DataConfig;

use super::rig::{Node, config};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn trusting() -> Node {
    let trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let head_timeout = Duration::from_millis(300);
    Node::start(DataConfig { trusted_proxies, head_timeout, ..config() })
}

/// A header that names 203.0.113.9, or nobody (LOCAL).
fn header(command: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 127, 0, 0, 1, 0, 80, 0, 80];
    [SIGNATURE, &[command, 0x11, 0, 12], &addresses].concat()
}

#[test]
fn a_trusted_balancer_names_the_client_with_proxy_v2() {
    let node = trusting();
    let mut client = node.connect();
    client.send(header(0x21));
    for _ in 0..2 {
        assert_eq!(client.post("echo", "", "{}").answer().body, "203.0.113.9 2 ");
    }
    // It need not be there, and a health check of the balancer names nobody.
    assert_eq!(node.connect().post("echo", "", "{}").answer().body, "127.0.0.1 2 ");
    let mut client = node.connect();
    client.send(header(0x20));
    assert_eq!(client.post("echo", "", "{}").answer().body, "127.0.0.1 2 ");
}

#[test]
fn a_header_in_pieces_is_the_same_header() {
    let node = trusting();
    let mut client = node.connect();
    for byte in header(0x21) {
        client.send([byte]);
    }
    assert_eq!(client.post("echo", "", "{}").answer().body, "203.0.113.9 2 ");
}

#[test]
fn a_peer_that_is_not_trusted_names_nobody() {
    let node = Node::start(config());
    let mut client = node.connect();
    let answer = client.send(header(0x21)).post("echo", "", "{}").read_to_end();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let named = node.connect().post("echo", "x-forwarded-for: 203.0.113.9\r\n", "{}").answer();
    assert_eq!(named.body, "127.0.0.1 2 ");
}

#[test]
fn a_trusted_balancer_names_the_client_with_a_header() {
    let node = trusting();
    let mut client = node.connect();
    let list = "x-forwarded-for: 198.51.100.7, 203.0.113.9, 127.0.0.5\r\n";
    assert_eq!(client.post("echo", list, "{}").answer().body, "203.0.113.9 2 ");
    assert_eq!(
        client.post("echo", "forwarded: for=203.0.113.8\r\n", "{}").answer().body,
        "203.0.113.8 2 "
    );
}

#[test]
fn a_malformed_large_or_unfinished_header_ends_the_connection() {
    let node = trusting();
    let large = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    let malformed = [SIGNATURE, &[0x91, 0x11, 0, 0]].concat();
    let unfinished = header(0x21)[..20].to_vec();
    for (name, bytes) in [("large", large), ("malformed", malformed), ("unfinished", unfinished)] {
        assert_eq!(node.connect().send(bytes).read_to_end(), "", "{name}");
    }
}
