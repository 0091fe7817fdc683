//! The chaos proxy does to a connection what it is told, and nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::chaos::ChaosProxy;

/// Longer than anything that is expected to happen.
const LONG: Duration = Duration::from_secs(20);

/// Long enough to believe that nothing comes.
const QUIET: Duration = Duration::from_millis(200);

/// A server that echoes one connection and then tells how it ended.
fn echo() -> (SocketAddr, JoinHandle<Option<ErrorKind>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let thread = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().expect("a connection");
        tcp.set_read_timeout(Some(LONG)).expect("a timeout");
        let mut piece = [0; 1024];
        loop {
            match tcp.read(&mut piece) {
                Ok(0) => return None,
                Ok(len) => tcp.write_all(&piece[..len]).expect("the proxy reads"),
                Err(error) => return Some(error.kind()),
            }
        }
    });
    (addr, thread)
}

/// An echo behind a proxy, and a client in front of it that has been through once.
fn connected() -> (ChaosProxy, TcpStream, JoinHandle<Option<ErrorKind>>) {
    let (target, thread) = echo();
    let proxy = ChaosProxy::start(target);
    let mut tcp = TcpStream::connect(proxy.addr()).expect("the proxy listens");
    assert_eq!(say(&mut tcp, b"ping"), Ok(b"ping".to_vec()));
    (proxy, tcp, thread)
}

fn say(tcp: &mut TcpStream, bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    tcp.write_all(bytes).map_err(|error| error.kind())?;
    hear(tcp, LONG)
}

/// What comes next: bytes, nothing more (an empty list), or an error.
fn hear(tcp: &mut TcpStream, within: Duration) -> Result<Vec<u8>, ErrorKind> {
    tcp.set_read_timeout(Some(within)).expect("a timeout");
    let mut piece = [0; 1024];
    tcp.read(&mut piece).map(|len| piece[..len].to_vec()).map_err(|error| error.kind())
}

#[test]
fn passing_ends_with_the_client() {
    let (proxy, tcp, thread) = connected();
    assert_eq!((proxy.connections(), proxy.open()), (1, 1));
    drop(tcp);
    assert_eq!(thread.join().expect("the echo ends well"), None);
}

#[test]
fn refusing_closes_new_connections_only() {
    let (proxy, mut tcp, _thread) = connected();
    proxy.refuse();
    let mut new = TcpStream::connect(proxy.addr()).expect("the proxy listens");
    assert!(matches!(hear(&mut new, LONG), Ok(end) if end.is_empty()));
    assert_eq!(say(&mut tcp, b"pong"), Ok(b"pong".to_vec()));
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn stalling_holds_bytes_until_they_may_pass() {
    let (proxy, mut tcp, _thread) = connected();
    proxy.stall();
    tcp.write_all(b"held").expect("the proxy reads");
    assert_eq!(hear(&mut tcp, QUIET), Err(ErrorKind::WouldBlock));
    proxy.pass();
    assert_eq!(hear(&mut tcp, LONG), Ok(b"held".to_vec()));
}

#[test]
fn half_open_swallows_bytes_and_goodbyes() {
    let (proxy, mut tcp, thread) = connected();
    proxy.half_open();
    tcp.write_all(b"lost").expect("the proxy reads");
    assert_eq!(hear(&mut tcp, QUIET), Err(ErrorKind::WouldBlock));
    drop(tcp);
    assert!(!thread.is_finished(), "the echo still believes in the client");
    proxy.cut();
    assert_eq!(thread.join().expect("the echo ends well"), None);
}

#[test]
fn cutting_closes_both_sides() {
    let (proxy, mut tcp, thread) = connected();
    proxy.cut();
    assert_eq!(hear(&mut tcp, LONG), Ok(Vec::new()));
    assert_eq!(thread.join().expect("the echo ends well"), None);
}

#[test]
fn resetting_resets_both_sides() {
    let (proxy, mut tcp, thread) = connected();
    proxy.reset();
    assert_eq!(hear(&mut tcp, LONG), Err(ErrorKind::ConnectionReset));
    assert_eq!(thread.join().expect("the echo ends well"), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_delay_counts_in_each_direction() {
    let (proxy, mut tcp, _thread) = connected();
    proxy.delay(Duration::from_millis(60));
    let started = Instant::now();
    assert_eq!(say(&mut tcp, b"slow"), Ok(b"slow".to_vec()));
    assert!(started.elapsed() >= Duration::from_millis(120));
}

#[test]
fn dropping_lets_as_many_bytes_through_as_told() {
    let (proxy, mut tcp, _thread) = connected();
    proxy.drop_after(6);
    assert_eq!(say(&mut tcp, b"four"), Ok(b"four".to_vec()));
    assert_eq!(say(&mut tcp, b"more"), Ok(b"mo".to_vec()));
    assert_eq!(hear(&mut tcp, LONG), Ok(Vec::new()));
}

#[test]
fn dropping_the_proxy_ends_everything() {
    let (proxy, mut tcp, thread) = connected();
    let addr = proxy.addr();
    drop(proxy);
    assert_eq!(hear(&mut tcp, LONG), Ok(Vec::new()));
    assert_eq!(thread.join().expect("the echo ends well"), None);
    assert!(TcpStream::connect(addr).is_err());
}
