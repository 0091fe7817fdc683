//! Making connections: clock, address check, TLS, refusals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla::domain::{BaseUrl, Origin};
use flotilla::upstream::{AddressPolicy, Call, Config, SendError, Upstream, tls_config};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{call, client_of, get, in_time, on_worker, send};
use crate::support::wall::{Script, Wall, answer};

fn plain(config: Config) -> Upstream {
    Upstream::new(config, tls_config(None).expect("the roots of the web"))
}

fn origin(url: &str) -> Origin {
    url.parse::<BaseUrl>().expect("a URL").origin
}

fn hasty() -> Call {
    Call { connect: Duration::from_millis(150), ..call(actix_http::Method::POST, "{}") }
}

// T31e, T32: the address counts, not the name, and in all of its disguises.
#[test]
fn a_forbidden_address_is_never_connected_to() {
    on_worker(async {
        let upstream = plain(Config::default());
        for url in [
            "http://169.254.169.254",
            "http://[::ffff:169.254.169.254]",
            "http://[::ffff:a9fe:a9fe]",
            "http://[::169.254.169.254]",
            "http://[64:ff9b::a9fe:a9fe]",
            "http://[fe80::1]",
            "http://[fd00:ec2::254]",
            "http://0.0.0.0",
            "http://[::]",
            "http://224.0.0.1",
            "http://255.255.255.255",
            "https://169.254.169.254",
            // Forms that only the resolver understands.
            "http://0xa9fea9fe",
            "http://2852039166",
            "http://0251.0376.0251.0376",
        ] {
            let outcome = send(&upstream, &origin(url)).await;
            assert!(matches!(outcome, Err(SendError::AddressRefused)), "{url}: {outcome:?}");
        }
    });
}

#[test]
fn a_stricter_policy_refuses_loopback() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let config = Config { addresses: AddressPolicy::PublicOnly, ..Config::default() };
        let upstream = plain(config);
        let named = origin(&format!("http://localhost:{}", wall.address().port()));
        for origin in [wall.origin(), named] {
            let outcome = send(&upstream, &origin).await;
            assert!(matches!(outcome, Err(SendError::AddressRefused)), "{outcome:?}");
        }
        assert_eq!(wall.connections(), 0);
    });
}

#[test]
fn nobody_listening_is_an_error_of_connecting() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    on_worker(async {
        let outcome = send(&plain(Config::default()), &origin(&format!("http://{address}"))).await;
        assert!(matches!(outcome, Err(SendError::Connect(_))), "{outcome:?}");
        let unknown = origin("http://no-such-name.invalid");
        let outcome = in_time(plain(Config::default()).send(&unknown, hasty())).await;
        let expected = matches!(outcome, Err(SendError::Connect(_) | SendError::ConnectTimeout));
        assert!(expected, "{outcome:?}");
    });
}

// A listener whose queue is full: the kernel drops what asks to come in.
#[test]
fn the_connect_clock_ends_waiting_for_tcp() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&SockAddr::from(any)).expect("a port");
    listener.listen(0).expect("a listener");
    let address = listener.local_addr().expect("bound").as_socket().expect("IPv4");
    let fillers: Vec<_> = (0..8)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            filler.set_nonblocking(true).expect("a socket");
            drop(filler.connect(&SockAddr::from(address)));
            filler
        })
        .collect();
    on_worker(async {
        let start = Instant::now();
        let origin = origin(&format!("http://{address}"));
        let outcome = in_time(plain(Config::default()).send(&origin, hasty())).await;
        assert!(matches!(outcome, Err(SendError::ConnectTimeout)), "{outcome:?}");
        assert!(start.elapsed() >= Duration::from_millis(150));
    });
    drop((listener, fillers));
}

#[test]
fn the_connect_clock_ends_waiting_for_tls() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    on_worker(async {
        let origin = origin(&format!("https://{address}"));
        let outcome = in_time(plain(Config::default()).send(&origin, hasty())).await;
        assert!(matches!(outcome, Err(SendError::ConnectTimeout)), "{outcome:?}");
    });
}

#[test]
fn the_connect_clock_stops_when_the_connection_is_made() {
    for tls in [false, true] {
        let late = Script::new().pause(Duration::from_millis(400)).send(answer(200, &[], "late"));
        let wall = Wall::start_with(tls, move |_| late.clone());
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let answer = in_time(upstream.send(&wall.origin(), hasty())).await.expect("an answer");
            assert_eq!(super::read(answer).await, Ok("late".into()));
        });
    }
}

// T32: plain awc gives up after five seconds, whatever it waits for.
#[test]
fn no_clock_runs_while_a_provider_thinks() {
    let wall = Wall::always(Script::new().pause(Duration::from_millis(5_300)).send(answer(
        200,
        &[],
        "thought",
    )));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        assert_eq!(get(&upstream, &wall.origin()).await, "thought");
    });
}

#[test]
fn a_certificate_that_does_not_verify_is_refused() {
    let wall = Wall::start_with(true, |_| Script::json(200, "ok"));
    on_worker(async {
        // Another CA.
        let outcome = send(&plain(Config::default()), &wall.origin()).await;
        assert!(matches!(outcome, Err(SendError::Tls(_))), "{outcome:?}");
        assert_eq!(wall.count(), 0, "nothing was sent");
        // The right CA, another name.
        let upstream = client_of(&wall, Config::default());
        let other = Origin { host: "127.0.0.2".into(), ..wall.origin() };
        let outcome = send(&upstream, &other).await;
        assert!(matches!(outcome, Err(SendError::Tls(_) | SendError::Connect(_))), "{outcome:?}");
        // The right CA, a right name.
        let named = Origin { host: Arc::from("localhost"), ..wall.origin() };
        assert_eq!(get(&upstream, &named).await, "ok");
        assert_eq!(get(&upstream, &wall.origin()).await, "ok");
        // Plain text to a TLS port.
        let outcome = send(&upstream, &origin(&format!("http://{}", wall.address()))).await;
        assert!(matches!(outcome, Err(SendError::Closed | SendError::Malformed)), "{outcome:?}");
    });
}

// The CA is trusted and somebody listens: only the certificate can be what is refused.
#[test]
fn a_certificate_for_another_name_or_another_time_is_refused() {
    let ok = || Script::json(200, "ok");
    for (names, valid, host, accepted) in [
        (&["localhost"][..], true, "localhost", true),
        (&["127.0.0.1"], true, "127.0.0.1", true),
        (&["localhost"], true, "127.0.0.1", false),
        (&["127.0.0.1"], true, "localhost", false),
        (&["127.0.0.2", "*.localhost", "evil.example"], true, "127.0.0.1", false),
        (&["*.localhost", "evil.example"], true, "localhost", false),
        (&["localhost", "127.0.0.1"], false, "localhost", false),
        (&["localhost", "127.0.0.1"], false, "127.0.0.1", false),
    ] {
        let wall = Wall::certified(names, valid, ok());
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let origin = Origin { host: host.into(), ..wall.origin() };
            let outcome = send(&upstream, &origin).await;
            match accepted {
                true => assert!(outcome.is_ok(), "{names:?}, {host}: {outcome:?}"),
                false => {
                    let refused = matches!(outcome, Err(SendError::Tls(_)));
                    assert!(refused, "{names:?}, {valid}, {host}: {outcome:?}");
                    assert_eq!(wall.count(), 0, "nothing was sent");
                }
            }
        });
    }
}

#[test]
fn the_kernel_watches_over_a_live_connection() {
    let wall = Wall::always(Script::json(200, "ok"));
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        get(&upstream, &wall.origin()).await;
        // The sixth column of /proc/net/tcp names the timer that runs: 02 is the keepalive timer.
        let remote = format!("0100007F:{:04X}", wall.address().port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
        let timer = table.lines().find_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            // State 01 is established: the port may have had other connections before.
            (columns.get(2..4)? == [remote.as_str(), "01"]).then(|| columns[5].to_owned())
        });
        let timer = timer.expect("connected");
        assert!(timer.starts_with("02:"), "{timer}");
    });
}
