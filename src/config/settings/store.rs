//! Where a fleet's shared state is kept, and the clocks of whoever keeps it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::parse::{self, HOUR};
use super::reader::Reader;
use super::redis_url::{RedisUrl, redis_url};
use crate::config::load::read;
use crate::domain::Secret;

/// A lease is renewed three times while it lasts; a tick must not be most of one.
const TICKS_OF_A_LEASE: u32 = 4;

/// Where state is kept. Without Redis it is this node's own.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The Redis that nodes share; none: standalone.
    pub redis: Option<RedisSettings>,
    /// How long permits and leases live without renewal.
    pub lease_ttl: Duration,
    /// The interval of heartbeats.
    pub tick: Duration,
    /// When a silent node counts as lost.
    pub node_ttl: Duration,
    /// Where unsent usage is kept; none: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// A Redis and how it is spoken to.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is, and as whom.
    pub url: RedisUrl,
    /// Starts every key and channel.
    pub prefix: String,
    /// Of one call while a request waits.
    pub deadline: Duration,
    /// Authorities that vouch for it, as PEM; none: the usual ones.
    pub tls_ca: Option<Vec<u8>>,
    /// Who we are, where it asks.
    pub tls_client: Option<TlsClient>,
}

/// A client certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct TlsClient {
    /// The certificate and those that lead to its authority.
    pub cert: Vec<u8>,
    /// Its key.
    pub key: Secret,
}

/// Reads all settings of the store. Blocks on the files of TLS.
pub(super) fn store(reader: &mut Reader) -> StoreSettings {
    let ms = Duration::from_millis;
    let prefix = reader.with("redis_prefix", parse::label);
    let deadline = reader.duration("redis_deadline", ms(1), ms(10_000));
    let url = reader.optional_with("redis_url", redis_url);
    let tls_ca = pem(reader, "redis_tls_ca", is_certificate, "no certificate");
    let cert = pem(reader, "redis_tls_cert", is_certificate, "no certificate");
    let key = pem(reader, "redis_tls_key", is_key, "no private key");
    if url.as_ref().is_none_or(|url| !url.tls) {
        for name in ["redis_tls_ca", "redis_tls_cert", "redis_tls_key"] {
            if reader.is_set(name) {
                let hint = "let FLOTILLA_REDIS_URL begin with rediss://, or leave it unset";
                reader.fault(name, "is for TLS, and Redis is not spoken to over TLS", Some(hint));
            }
        }
    }
    for (one, other) in [("redis_tls_cert", "redis_tls_key"), ("redis_tls_key", "redis_tls_cert")] {
        if reader.is_set(one) && !reader.is_set(other) {
            let hint = "a client certificate and its key come together";
            reader.fault(other, "is not set", Some(hint));
        }
    }
    let key = key.and_then(|key| String::from_utf8(key).ok()).map(Secret::new);
    let tls_client = cert.zip(key).map(|(cert, key)| TlsClient { cert, key });
    let store = StoreSettings {
        redis: url.map(|url| RedisSettings { url, prefix, deadline, tls_ca, tls_client }),
        lease_ttl: reader.duration("lease_ttl", ms(1), HOUR),
        tick: reader.duration("tick", ms(10), ms(60_000)),
        node_ttl: reader.duration("node_ttl", ms(1), HOUR),
        state_dir: reader.optional("state_dir").map(PathBuf::from),
    };
    store.together(reader, deadline);
    store
}

impl StoreSettings {
    /// What two settings say about each other.
    fn together(&self, reader: &mut Reader, deadline: Duration) {
        if self.node_ttl <= self.tick {
            let hint = "set it to several times FLOTILLA_TICK";
            reader.fault("node_ttl", "a node would be lost between two heartbeats", Some(hint));
        }
        if self.lease_ttl < self.tick * TICKS_OF_A_LEASE {
            let hint = format!("set it to at least {TICKS_OF_A_LEASE} times FLOTILLA_TICK");
            reader.fault("lease_ttl", "leases would end before they are renewed", Some(&hint));
        } else if self.lease_ttl < deadline * TICKS_OF_A_LEASE {
            let hint =
                format!("set it to at least {TICKS_OF_A_LEASE} times FLOTILLA_REDIS_DEADLINE");
            reader.fault("lease_ttl", "leases would end before they are renewed", Some(&hint));
        }
        if self.state_dir.as_ref().is_some_and(|dir| !dir.is_dir()) {
            let hint = "create it, for the user that the node runs as";
            reader.fault("state_dir", "not a directory", Some(hint));
        }
    }
}

/// The content of a file of PEM.
fn pem(reader: &mut Reader, name: &str, good: fn(&[u8]) -> bool, none: &str) -> Option<Vec<u8>> {
    let file = reader.optional(name)?;
    match read(Path::new(&file)) {
        Ok(bytes) if good(&bytes) => Some(bytes),
        Ok(_) => {
            let what = format!("holds {none} in PEM");
            reader.fault(name, &what, Some("name a file with -----BEGIN ... lines"));
            None
        }
        Err(what) => {
            reader.fault(name, &what, None);
            None
        }
    }
}

fn is_certificate(bytes: &[u8]) -> bool {
    let mut found = CertificateDer::pem_slice_iter(bytes).peekable();
    found.peek().is_some() && found.all(|certificate| certificate.is_ok())
}

fn is_key(bytes: &[u8]) -> bool {
    PrivateKeyDer::from_pem_slice(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
}
