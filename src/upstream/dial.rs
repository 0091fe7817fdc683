//! Making a connection: name look-up, address check, TCP, TLS.
//!
//! No clock runs in here but the stagger between addresses; the caller puts its connect clock
//! around the whole.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::SendError;
use super::config::Config;
use super::site::Site;
use super::socket::{Connection, Socket};
use crate::domain::Scheme;

/// How long one address may be tried before the next is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses tried at most: a name with hundreds of them opens no hundreds of sockets.
const MAX_ADDRESSES: usize = 8;

/// Silence on a connection, idle or waiting for an answer, after which the kernel asks whether
/// the other side is still there; below the 350 s and more of NAT gateways and balancers.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(45);

/// Between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// Makes a connection to `site`.
pub(super) async fn dial(
    site: &Site,
    config: &Config,
    tls: &TlsConnector,
) -> Result<Connection, SendError> {
    let origin = site.origin();
    let found = site.lookup().addresses(&origin.host, origin.port).await;
    let found = found.map_err(SendError::Connect)?;
    let allowed: Vec<_> =
        found.iter().copied().filter(|address| config.addresses.allows(address.ip())).collect();
    if allowed.is_empty() && !found.is_empty() {
        return Err(SendError::AddressRefused);
    }
    let tcp = match race(interleave(allowed)).await {
        Ok(tcp) => tcp,
        Err(error) => {
            site.lookup().forget();
            return Err(SendError::Connect(error));
        }
    };
    configure(&tcp, config).map_err(SendError::Connect)?;
    let socket = match origin.scheme {
        Scheme::Http => Socket::Plain(tcp),
        Scheme::Https => {
            let name = ServerName::try_from(origin.host.to_string());
            let name = name.map_err(|error| SendError::Tls(io::Error::other(error)))?;
            Socket::Tls(Box::new(tls.connect(name, tcp).await.map_err(SendError::Tls)?))
        }
    };
    Ok(Connection { socket, opened: Instant::now() })
}

/// Sets what every connection to a provider has: no waiting for more data before a segment is
/// sent, a question after long silence, and an end to data that nobody acknowledges.
fn configure(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.user_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    Ok(())
}

/// The addresses with IPv6 and IPv4 in turns, so that one broken family costs one stagger.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut rest = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(rest.next());
    }
    mixed.extend(rest);
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

/// The first connection that is made. The next address is tried at once where one fails, and
/// beside the others where they are silent.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        running.extend(left.next().map(TcpStream::connect));
        if running.is_empty() {
            return Err(last);
        }
        match timeout(STAGGER, running.next()).await {
            Ok(Some(Ok(tcp))) => return Ok(tcp),
            Ok(Some(Err(error))) => last = error,
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns() {
        let [a, b, c] = ["[::1]:1", "[::2]:1", "[::3]:1"].map(address);
        let [x, y] = ["1.1.1.1:1", "2.2.2.2:1"].map(address);
        assert_eq!(interleave(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(interleave(vec![x, a, b]), [x, a, b]);
        assert_eq!(interleave(vec![a; 100]).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_refused_address_gives_way_to_the_next_at_once() {
        actix_rt::System::new().block_on(async {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let refused = gone.local_addr().expect("its address");
            drop(gone);
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let open = listener.local_addr().expect("its address");
            let tcp = race(vec![refused, open]).await.expect("the second address answers");
            assert_eq!(tcp.peer_addr().expect("connected"), open);
            let error = race(vec![refused, refused]).await.expect_err("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            let error = race(Vec::new()).await.expect_err("no address");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        });
    }

    // T32: awc sets none of these.
    #[test]
    fn every_connection_has_nodelay_keepalive_and_a_user_timeout() {
        actix_rt::System::new().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("its address").port();
            let origin =
                crate::domain::Origin { scheme: Scheme::Http, host: "127.0.0.1".into(), port };
            let site = Site::new(&origin, 1, &Default::default()).expect("a good origin");
            let config = Config { user_timeout: Duration::from_secs(7), ..Config::default() };
            let tls = TlsConnector::from(super::super::tls_config(None).expect("roots"));
            let connection = dial(&site, &config, &tls).await.expect("connected");
            let socket = SockRef::from(connection.socket.tcp());
            assert!(socket.tcp_nodelay().expect("readable"));
            assert!(socket.keepalive().expect("readable"));
            assert_eq!(socket.tcp_keepalive_time().expect("readable"), KEEPALIVE_AFTER);
            assert_eq!(socket.tcp_keepalive_interval().expect("readable"), KEEPALIVE_EVERY);
            assert_eq!(socket.tcp_user_timeout().expect("readable"), Some(config.user_timeout));
        });
    }
}
