//! Which addresses may be connected to, whatever name led there.
//!
//! Checked after name look-up and right before each connect, so that a name cannot change its
//! meaning in between. Metadata services of clouds hand out credentials to whoever asks from
//! inside; nothing a provider's URL says may lead there. Loopback and private networks stay open:
//! operators run their own models there. IPv6 has many ways to write an IPv4 address, and each of
//! them is taken apart and judged as the address that packets would reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// All but link-local, unspecified, multicast, broadcast and metadata addresses.
    #[default]
    Guarded,
    /// As `Guarded`, and no loopback and no private network either.
    PublicOnly,
}

/// Metadata services outside the link-local range: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Metadata services outside the link-local range: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl AddressPolicy {
    /// True where a connection to `address` may be made.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.allows_v4(v4),
            IpAddr::V6(v6) => {
                let hidden = hidden_v4(v6).into_iter().chain(translated(v6));
                self.allows_v6(v6) && hidden.into_iter().all(|v4| self.allows_v4(v4))
            }
        }
    }

    fn allows_v4(self, v4: Ipv4Addr) -> bool {
        let [first, second, ..] = v4.octets();
        let guarded = first == 0
            || v4.is_link_local()
            || v4.is_multicast()
            || v4.is_broadcast()
            || METADATA_V4.contains(&v4);
        // 100.64/10 is the shared space of carriers, which is nobody's public address.
        let shared = first == 100 && (64..128).contains(&second);
        let inner = v4.is_loopback() || v4.is_private() || shared;
        !(guarded || self == Self::PublicOnly && inner)
    }

    fn allows_v6(self, v6: Ipv6Addr) -> bool {
        let guarded = v6.is_unspecified()
            || v6.is_multicast()
            || v6.is_unicast_link_local()
            || METADATA_V6.contains(&v6);
        let inner = v6.is_loopback() || v6.is_unique_local();
        !(guarded || self == Self::PublicOnly && inner)
    }
}

/// The IPv4 address that packets to `v6` end at, where it hides one.
fn hidden_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        // Loopback and unspecified look like the compatible form but are not.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible (::a.b.c.d), mapped (::ffff:a.b.c.d), translated (::ffff:0:a.b.c.d).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            Some(last(high, low))
        }
        // NAT64: the well-known prefix, and the one for local use.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(last(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => Some(last(high, low)),
        // Teredo: the client's address, inverted.
        [0x2001, 0, _, _, _, _, high, low] => Some(last(!high, !low)),
        _ => None,
    }
}

/// Further IPv4 addresses that packets to `v6` may end at. A translator for local use may have a
/// prefix of any length (RFC 6052, section 2.2), and does not look at what is behind the address.
/// The first octet of such an address is not 0: that is how one of another length looks.
fn translated(v6: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let local = v6.segments().starts_with(&[0x64, 0xff9b, 1]);
    let [.., a, b, _, c, d, e, f, _, _, _] = v6.octets();
    let places = [[a, b, c, d], [b, c, d, e], [c, d, e, f]];
    let found = places.into_iter().filter(move |octets| local && octets.first() != Some(&0));
    found.map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: AddressPolicy, text: &str) -> bool {
        policy.allows(text.parse().expect("an address"))
    }

    #[test]
    fn link_local_and_its_disguises_are_refused() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00:101:101",
            "64:ff9b:1:a9:fe:a9fe:101:101",
            "64:ff9b:1:0:a9:fea9:fe01:101",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
        ] {
            assert!(!allows(AddressPolicy::Guarded, text), "{text}");
        }
    }

    #[test]
    fn loopback_private_and_public_are_allowed() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "1.1.1.1",
            "::1",
            "fd00::1",
            "2606:4700::1111",
            "::ffff:127.0.0.1",
            "64:ff9b::1.1.1.1",
            "64:ff9b:1::1.1.1.1",
        ] {
            assert!(allows(AddressPolicy::Guarded, text), "{text}");
        }
    }

    #[test]
    fn public_only_refuses_loopback_and_private() {
        for text in ["127.0.0.1", "10.1.2.3", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!allows(AddressPolicy::PublicOnly, text), "{text}");
        }
        for text in ["1.1.1.1", "2606:4700::1111", "100.128.0.1"] {
            assert!(allows(AddressPolicy::PublicOnly, text), "{text}");
        }
    }
}
