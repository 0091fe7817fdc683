//! Whose request it is: the client's address behind any number of trusted proxies.
//!
//! The rule: begin with the peer (or with whom it named by PROXY v2) and walk towards the client
//! for as long as the address reached is trusted, because only a trusted hop's word about the one
//! before it counts. The first untrusted address is the client. A word that is not an address
//! ends the walk at whoever said it.
//!
//! Where both headers are there, `X-Forwarded-For` is read: proxies that write it leave a
//! client's own `Forwarded` in place far more often than the other way round. A proxy that writes
//! `Forwarded` has to remove `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use actix_http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};
use ipnet::IpNet;

/// More hops than any real chain; what is beyond is not looked at.
const MAX_HOPS: usize = 32;

/// Whether what this address says about others is believed.
pub(super) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// The client's address; `from` is the peer, or whom a trusted peer named by PROXY v2.
pub(super) fn client_ip(from: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = from.to_canonical();
    if trusted.is_empty() || !is_trusted(client, trusted) {
        return client;
    }
    let hops = if headers.contains_key(X_FORWARDED_FOR) {
        hops(headers, &X_FORWARDED_FOR, |hop| parse(hop.trim()))
    } else {
        hops(headers, &FORWARDED, forwarded_for)
    };
    for hop in hops {
        let Some(ip) = hop else { break };
        client = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    client
}

/// The hops from the nearest to the farthest; none stands for one that is not an address.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: impl Fn(&str) -> Option<IpAddr>,
) -> Vec<Option<IpAddr>> {
    let lines: Vec<_> = headers.get_all(name).collect();
    let mut hops = Vec::new();
    for line in lines.into_iter().rev() {
        let Ok(line) = line.to_str() else {
            hops.push(None);
            break;
        };
        hops.extend(line.rsplit(',').map(&parse).take(MAX_HOPS - hops.len()));
        if hops.len() >= MAX_HOPS || hops.last() == Some(&None) {
            break;
        }
    }
    hops
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| parse(value)).flatten()
    })
}

/// An address, alone or with a port, in brackets or not.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().ok();
    ip.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::header::HeaderValue;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().expect("a network")).collect()
    }

    /// The client of a request from `from` with these headers.
    fn client(from: &str, headers: &[(&str, &str)]) -> IpAddr {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        client_ip(ip(from), &map, &trusted())
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        for name in ["x-forwarded-for", "forwarded"] {
            assert_eq!(client("192.0.2.1", &[(name, "203.0.113.5")]), ip("192.0.2.1"));
        }
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        let list = "198.51.100.1, 203.0.113.5, 10.1.1.1";
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", list)]), ip("203.0.113.5"));
        let lines = [("x-forwarded-for", "1.2.3.4, 203.0.113.5"), ("x-forwarded-for", "10.9.9.9")];
        assert_eq!(client("10.0.0.1", &lines), ip("203.0.113.5"));
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.3.0.1,10.2.0.1")]), ip("10.3.0.1"));
        assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
    }

    #[test]
    fn mapped_addresses_are_the_same_address() {
        let list = "::ffff:203.0.113.5, ::ffff:10.1.1.1";
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", list)]), ip("203.0.113.5"));
    }

    #[test]
    fn garbage_ends_the_walk_at_whoever_said_it() {
        for garbage in ["unknown", "", "203.0.113.5 evil", "1.2.3", "\"203.0.113.5\"", "_hidden"] {
            let list = format!("203.0.113.5, {garbage}, 10.1.1.1");
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &list)]), ip("10.1.1.1"));
        }
    }

    #[test]
    fn ports_and_brackets_are_taken_off() {
        for (hop, expected) in [
            ("203.0.113.5:4711", "203.0.113.5"),
            ("[2001:db8::5]:4711", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("2001:db8::5", "2001:db8::5"),
        ] {
            assert_eq!(client("fd00::1", &[("x-forwarded-for", hop)]), ip(expected));
        }
    }

    #[test]
    fn forwarded_is_read_where_the_other_header_is_missing() {
        let list = r#"for=1.2.3.4, For="[2001:db8::5]:80";proto=https;by=10.0.0.2, for=10.1.1.1"#;
        assert_eq!(client("10.0.0.1", &[("forwarded", list)]), ip("2001:db8::5"));
        let both = [("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "203.0.113.5")];
        assert_eq!(client("10.0.0.1", &both), ip("203.0.113.5"));
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=unknown")]), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &[("forwarded", "proto=https")]), ip("10.0.0.1"));
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        let list = vec!["10.1.1.1"; 100_000].join(",");
        let list = format!("203.0.113.5,{list}");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &list)]), ip("10.1.1.1"));
    }
}
