//! Where Redis is: the URL and the TLS files of the settings, as the client needs them.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates,
};

/// How long a connection may take to be made, TLS and greeting included.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// Resends that a cluster client makes itself; all calls carry their id and a deadline.
const CLUSTER_RETRIES: u32 = 1;
/// Its waits between them, in ms.
const CLUSTER_WAIT_MS: (u64, u64) = (10, 100);

/// The PEM of `FLOTILLA_REDIS_TLS_*`.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who signs the server's certificate; none: the usual authorities.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and key, where the server asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identity = self.identity.is_some();
        f.debug_struct("Tls").field("ca", &self.ca.is_some()).field("identity", &identity).finish()
    }
}

/// A Redis that can be connected to.
pub(crate) enum Endpoint {
    /// One master.
    Single(Box<Client>),
    /// A cluster, found by any of its nodes.
    Cluster(Box<ClusterClient>),
}

/// Why a URL is none of ours. Never holds the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It cannot be read.
    #[error("not a Redis URL: write redis://user:password@host:port/db")]
    Url,
    /// Another scheme.
    #[error("the scheme is redis, rediss, redis+cluster or rediss+cluster")]
    Scheme,
    /// The PEM of a TLS file.
    #[error("a TLS file does not hold the PEM of a certificate or key")]
    Pem,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(url: &str, tls: &Tls, deadline: Duration) -> Result<Self, EndpointError> {
        let (scheme, rest) = url.split_once("://").ok_or(EndpointError::Url)?;
        match scheme {
            "redis" | "rediss" | "unix" => Self::single(url, tls),
            "redis+cluster" => Self::cluster("redis", rest, tls, deadline),
            "rediss+cluster" => Self::cluster("rediss", rest, tls, deadline),
            _ => Err(EndpointError::Scheme),
        }
    }

    fn single(url: &str, tls: &Tls) -> Result<Self, EndpointError> {
        let info = url.into_connection_info().map_err(|_| EndpointError::Url)?;
        let info = info.set_tcp_settings(tcp());
        let client = if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            Client::build_with_tls(info, certificates(tls)).map_err(|_| EndpointError::Pem)?
        } else {
            Client::open(info).map_err(|_| EndpointError::Url)?
        };
        Ok(Self::Single(Box::new(client)))
    }

    /// User and password stand before the first node: `redis+cluster://u:p@h1:p1,h2:p2`.
    fn cluster(
        scheme: &str,
        rest: &str,
        tls: &Tls,
        deadline: Duration,
    ) -> Result<Self, EndpointError> {
        let (user, nodes) = rest.rsplit_once('@').map_or(("", rest), |(user, nodes)| (user, nodes));
        let at = if user.is_empty() { "" } else { "@" };
        let nodes: Result<Vec<ConnectionInfo>, _> = nodes
            .trim_end_matches('/')
            .split(',')
            .map(|node| format!("{scheme}://{user}{at}{node}").into_connection_info())
            .collect();
        let mut builder = ClusterClientBuilder::new(nodes.map_err(|_| EndpointError::Url)?)
            .tcp_settings(tcp())
            .connection_timeout(CONNECT)
            .response_timeout(deadline)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_WAIT_MS.0)
            .max_retry_wait(CLUSTER_WAIT_MS.1);
        if scheme == "rediss" {
            builder = builder.certs(certificates(tls));
        }
        let client = builder.build().map_err(|_| EndpointError::Pem)?;
        Ok(Self::Cluster(Box::new(client)))
    }
}

/// Without delay: small commands of many requests share the connection.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let client_tls = tls.identity.clone();
    TlsCertificates {
        client_tls: client_tls
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
        root_cert: tls.ca.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(url, &Tls::default(), Duration::from_millis(50))
    }

    #[test]
    fn the_schemes_of_the_settings_are_read() {
        for url in ["redis://127.0.0.1", "redis://u:p@h:6380/2", "rediss://h:1", "unix:///a/b"] {
            assert!(matches!(parse(url), Ok(Endpoint::Single(_))), "{url}");
        }
        for url in
            ["redis+cluster://u:p@h1:1,h2:2", "rediss+cluster://h1:1/", "redis+cluster://h:1"]
        {
            assert!(matches!(parse(url), Ok(Endpoint::Cluster(_))), "{url}");
        }
    }

    #[test]
    fn what_is_no_redis_is_refused() {
        assert_eq!(parse("localhost:6379").err(), Some(EndpointError::Url));
        assert_eq!(parse("http://localhost").err(), Some(EndpointError::Scheme));
        let tls = Tls { ca: None, identity: Some((b"no".to_vec(), b"pem".to_vec())) };
        let read = Endpoint::parse("rediss://h:1", &tls, CONNECT);
        assert_eq!(read.err(), Some(EndpointError::Pem));
    }
}
