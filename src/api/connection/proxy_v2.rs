//! The PROXY protocol, version 2: how a balancer names the client of a TCP connection.
//!
//! Pure: bytes in, a decision out. Who is believed is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What every header begins with; no HTTP request does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
pub(super) const FIXED: usize = 16;

/// The longest header we read: addresses, and options such as those of large clouds.
pub(super) const MAX: usize = 4096;

/// What the bytes at the start of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Intro {
    /// No PROXY header: they belong to the request.
    Absent,
    /// Read on until there are this many bytes.
    Need(usize),
    /// A whole header; the client's address, where it names one.
    Complete(Option<IpAddr>),
    /// A header that cannot be understood.
    Malformed,
}

/// Reads the bytes that came first.
pub(super) fn read(bytes: &[u8]) -> Intro {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return Intro::Absent;
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Intro::Need(FIXED);
    };
    let [.., command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + len > MAX || command >> 4 != 2 {
        return Intro::Malformed;
    }
    let Some(addresses) = rest.get(..len) else {
        return Intro::Need(FIXED + len);
    };
    match (command & 15, family) {
        // LOCAL: the balancer speaks for itself, a health check for instance.
        (0, _) => Intro::Complete(None),
        // PROXY over TCP, IPv4 and IPv6: source, destination, two ports.
        (1, 0x11) => source::<4, 12>(addresses, |ip| Ipv4Addr::from(ip).into()),
        (1, 0x21) => source::<16, 36>(addresses, |ip| Ipv6Addr::from(ip).to_canonical()),
        // Datagrams, Unix sockets and the unspecified: nothing that could be used.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Intro::Complete(None),
        _ => Intro::Malformed,
    }
}

fn source<const N: usize, const ALL: usize>(bytes: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Intro {
    match bytes.first_chunk::<N>() {
        Some(source) if bytes.len() >= ALL => Intro::Complete(Some(ip(*source))),
        _ => Intro::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    #[test]
    fn a_source_is_read_with_options_after_it() {
        let v4 = [&[203, 0, 113, 9, 127, 0, 0, 1, 1, 2, 3, 4][..], &[0x20; 30]].concat();
        let expected = Intro::Complete(Some("203.0.113.9".parse().expect("an address")));
        assert_eq!(read(&header(0x21, 0x11, &v4)), expected);
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("v6").octets());
        let expected = Intro::Complete(Some("2001:db8::7".parse().expect("an address")));
        assert_eq!(read(&header(0x21, 0x21, &v6)), expected);
        v6[..16].copy_from_slice(&"::ffff:203.0.113.9".parse::<Ipv6Addr>().expect("v6").octets());
        let expected = Intro::Complete(Some("203.0.113.9".parse().expect("an address")));
        assert_eq!(read(&header(0x21, 0x21, &v6)), expected);
    }

    #[test]
    fn local_and_unspecified_name_nobody() {
        assert_eq!(read(&header(0x20, 0, &[])), Intro::Complete(None));
        assert_eq!(read(&header(0x21, 0, &[])), Intro::Complete(None));
    }

    #[test]
    fn every_prefix_asks_for_more() {
        let whole = header(0x21, 0x11, &[1; 12]);
        for cut in 0..whole.len() {
            assert!(matches!(read(&whole[..cut]), Intro::Need(n) if n > cut), "{cut}");
        }
    }

    #[test]
    fn a_request_is_none() {
        assert_eq!(read(b"POST /v1/chat/completions HTTP/1.1"), Intro::Absent);
        assert_eq!(read(b"\r\n\r\nGET / HTTP/1.1"), Intro::Absent);
    }

    #[test]
    fn what_cannot_be_understood_is_malformed() {
        for (command, family, rest) in [
            (0x11, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 12]),
            (0x21, 0x99, &[0; 12]),
            (0x21, 0x11, &[0; MAX]),
        ] {
            assert_eq!(
                read(&header(command, family, rest)),
                Intro::Malformed,
                "{command} {family}"
            );
        }
    }
}
