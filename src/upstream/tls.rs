//! The TLS side of connections to providers.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The extra certificates are not PEM.
    #[error("the extra CA is not PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// The PEM holds no certificate.
    #[error("the extra CA holds no certificate")]
    Empty,
    /// A certificate in the PEM cannot be a root, or the provider lacks a protocol version.
    #[error("the extra CA cannot be used")]
    Rustls(#[from] rustls::Error),
}

/// Makes the configuration that all workers share, so that sessions resume across them: the
/// roots of the web and `extra_ca` (PEM, one certificate or more), and HTTP/1.1 only.
///
/// # Errors
/// Where `extra_ca` holds no usable certificate.
pub fn tls_config(extra_ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_ca {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(TlsError::Pem)?)?;
        }
        if roots.len() == before {
            return Err(TlsError::Empty);
        }
    }
    // The provider is named here, so that nothing depends on a process-wide default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_1_1_is_offered() {
        let config = tls_config(None).expect("the roots of the web");
        assert_eq!(config.alpn_protocols, vec![b"http/1.1".to_vec()]);
    }

    #[test]
    fn an_extra_ca_that_holds_none_is_an_error() {
        assert!(matches!(tls_config(Some(b"hello")), Err(TlsError::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n";
        assert!(matches!(tls_config(Some(broken)), Err(TlsError::Pem(_))));
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(tls_config(Some(no_certificate)), Err(TlsError::Rustls(_))));
    }
}
