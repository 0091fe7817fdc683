//! Whether a request may come from a web page, while nobody needs a key.
//!
//! A node on loopback without keys trusts whoever can reach it, and every page in the user's
//! browser can. A page under a name that its owner points at 127.0.0.1 (DNS rebinding) sends its
//! own name as `Host`; any other page sends its own `Origin`. Neither is a name of this machine.

use std::net::IpAddr;

use actix_http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

/// Why a request is refused; `None` lets it in.
pub(super) fn refusal(
    headers: &HeaderMap,
    listen: IpAddr,
    origin_allowed: impl Fn(&HeaderValue) -> bool,
) -> Option<&'static str> {
    // A browser always sends a Host; what sends none is no browser.
    if headers.get(HOST).is_some_and(|host| !is_local(host, listen)) {
        return Some(FOREIGN_HOST);
    }
    let foreign = |origin: &HeaderValue| {
        let Ok(text) = origin.to_str() else { return true };
        !text.split_once("://").is_some_and(|(_, authority)| is_local_name(authority, listen))
    };
    match headers.get(ORIGIN) {
        Some(origin) if foreign(origin) && !origin_allowed(origin) => Some(FOREIGN_ORIGIN),
        _ => None,
    }
}

const FOREIGN_HOST: &str = "The Host header is not a name of this machine. Without authentication \
    a node on loopback answers to localhost only: use http://localhost, or configure keys (data \
    listener) or FLOTILLA_ADMIN_TOKEN (admin listener).";
const FOREIGN_ORIGIN: &str = "The request comes from a web page of another origin. Without keys a \
    node on loopback serves such pages only where their origin is allowed by the CORS list: add \
    it there, or configure keys.";

fn is_local(value: &HeaderValue, listen: IpAddr) -> bool {
    value.to_str().is_ok_and(|authority| is_local_name(authority, listen))
}

/// Whether an authority, with a port or without, names this machine.
fn is_local_name(authority: &str, listen: IpAddr) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, "")) => ip,
            Some((ip, port)) if port.starts_with(':') => ip,
            _ => return false,
        },
        None => authority.split_once(':').map_or(authority, |(name, _)| name),
    };
    // With the dot at its end it is the same name.
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip == listen,
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                // RFC 6761: these never leave the machine either.
                || name.to_ascii_lowercase().ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(actix_http::header::HeaderName, &'static str)]) -> Option<&'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name.clone(), HeaderValue::from_static(value));
        }
        refusal(&map, IpAddr::from([127, 0, 0, 1]), |origin| origin == "https://app.example")
    }

    #[test]
    fn names_of_this_machine_are_let_in() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.2:1",
            "[::1]",
            "[::1]:8080",
        ] {
            assert_eq!(check(&[(HOST, host)]), None, "{host}");
        }
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1:8080",
            "evillocalhost",
            "[::2]",
            "[::1",
            "[::1]x",
            "",
        ] {
            assert_eq!(check(&[(HOST, host)]), Some(FOREIGN_HOST), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_allowed() {
        for origin in ["https://evil.example", "null", "chrome-extension://abc"] {
            assert_eq!(check(&[(HOST, "localhost"), (ORIGIN, origin)]), Some(FOREIGN_ORIGIN));
        }
        for origin in ["http://localhost:3000", "http://127.0.0.1:1", "https://app.example"] {
            assert_eq!(check(&[(HOST, "localhost"), (ORIGIN, origin)]), None, "{origin}");
        }
    }
}
