//! Where a provider lives: a scheme, a host, a port and a path prefix, from configuration only.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use actix_http::Uri;

/// How a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP: for servers on one's own network.
    Http,
    /// TLS.
    Https,
}

/// The address of a provider: what a connection is made to, and pooled by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// TLS or not.
    pub scheme: Scheme,
    /// Host name or address; an IPv6 address without brackets.
    pub host: Arc<str>,
    /// Port, filled in from the scheme where the URL has none.
    pub port: u16,
}

impl Origin {
    /// The value of the `Host` header: the port is left out where it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.host_header())
    }
}

/// A provider's base URL, such as `https://api.openai.com/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// What is connected to.
    pub origin: Origin,
    /// What stands before every path, without a slash at its end; often `/v1`, may be empty.
    pub prefix: Arc<str>,
}

/// Why a text is not a base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not an absolute URL.
    #[error("not a URL such as https://api.example.com/v1")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("the scheme must be http or https")]
    Scheme,
    /// A URL with a user or a password; credentials have their own field.
    #[error("a user or password in the URL is not allowed; use api_key")]
    Credentials,
    /// A query or fragment has no meaning before a path.
    #[error("a query or fragment is not allowed in a base URL")]
    Query,
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        if text.contains('#') {
            return Err(BaseUrlError::Query);
        }
        let uri: Uri = text.parse().map_err(|_| BaseUrlError::Malformed)?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(BaseUrlError::Scheme),
            None => return Err(BaseUrlError::Malformed),
        };
        let authority = uri.authority().ok_or(BaseUrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(BaseUrlError::Credentials);
        }
        if uri.query().is_some() {
            return Err(BaseUrlError::Query);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(BaseUrlError::Malformed);
        }
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(port), _) => port,
            // A colon with no port that fits sixteen bits behind it.
            (None, Some((_, rest))) if !rest.ends_with(']') => return Err(BaseUrlError::Malformed),
            (None, _) => match scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            },
        };
        let origin = Origin { scheme, host: host.to_ascii_lowercase().into(), port };
        Ok(Self { origin, prefix: uri.path().trim_end_matches('/').into() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        let url: BaseUrl = "https://API.openai.com/v1/".parse().expect("a good URL");
        assert_eq!(url.to_string(), "https://api.openai.com/v1");
        assert_eq!((&*url.origin.host, url.origin.port), ("api.openai.com", 443));
        let url: BaseUrl = "http://[::1]:8090".parse().expect("a good URL");
        assert_eq!((&*url.origin.host, url.origin.port, &*url.prefix), ("::1", 8090, ""));
        assert_eq!(url.origin.host_header(), "[::1]:8090");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for (text, error) in [
            ("", BaseUrlError::Malformed),
            ("api.openai.com/v1", BaseUrlError::Malformed),
            ("ftp://host/", BaseUrlError::Scheme),
            ("https://user:pw@host/", BaseUrlError::Credentials),
            ("https://host/?a=1", BaseUrlError::Query),
            ("https://host/#a", BaseUrlError::Query),
            ("https://host:99999/", BaseUrlError::Malformed),
            ("https://", BaseUrlError::Malformed),
        ] {
            assert_eq!(text.parse::<BaseUrl>(), Err(error), "{text}");
        }
    }
}
