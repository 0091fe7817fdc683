//! A certificate of its own for each wall.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// What a wall needs to speak TLS, and what its client needs to believe it.
pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) ca: String,
}

/// Makes a CA, and a certificate for `localhost` and `127.0.0.1`.
pub(super) fn identity() -> Identity {
    identity_for(&["localhost", "127.0.0.1"], true)
}

/// Makes a CA, and a certificate for these names, which is valid now or was once.
pub(super) fn identity_for(names: &[&str], valid: bool) -> Identity {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut leaf = CertificateParams::new(names).expect("good names");
    if !valid {
        leaf.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("the key fits");
    Identity { acceptor: TlsAcceptor::from(Arc::new(config)), ca: ca_certificate.pem() }
}
