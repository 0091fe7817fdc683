//! Where Redis is, from the one text that says it. Nothing of the text is ever repeated in a
//! message, for it may hold a password.

use std::fmt;
use std::net::Ipv6Addr;

use super::parse::Parsed;
use crate::domain::Secret;

const PORT: u16 = 6379;

/// The number of databases is Redis's own setting; none has more.
const DATABASES: u32 = 1 << 16;

/// Where Redis is, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether it is a cluster, of which `nodes` are some.
    pub cluster: bool,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Hosts and ports, at least one; exactly one where it is no cluster. An IPv6 address has no
    /// brackets.
    pub nodes: Vec<(String, u16)>,
    /// The user; none is Redis's default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database; 0 in a cluster.
    pub database: u32,
}

impl RedisUrl {
    /// The whole of it, in the one spelling that every Redis client reads: what is special in user
    /// and password percent-encoded, all ports and the database said.
    #[must_use]
    pub fn expose(&self) -> Secret {
        let user = self.username.as_deref().map(encoded).unwrap_or_default();
        let password = self.password.as_ref().map(|secret| encoded(secret.expose()));
        let password = password.map(|password| format!(":{password}")).unwrap_or_default();
        let at = if user.is_empty() && password.is_empty() { "" } else { "@" };
        Secret::new(self.written(&format!("{user}{password}{at}")))
    }

    fn written(&self, credentials: &str) -> String {
        let tls = if self.tls { "s" } else { "" };
        let cluster = if self.cluster { "+cluster" } else { "" };
        let node = |(host, port): &(String, u16)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let nodes: Vec<_> = self.nodes.iter().map(node).collect();
        let database = if self.cluster { String::new() } else { format!("/{}", self.database) };
        format!("redis{tls}{cluster}://{credentials}{}{database}", nodes.join(","))
    }
}

impl fmt::Display for RedisUrl {
    /// For logs: without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(""))
    }
}

/// Reads `redis://user:password@host:port/database` and its relatives.
pub(super) fn redis_url(text: &str) -> Parsed<RedisUrl> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
        ("redis", kind) => (false, kind),
        ("rediss", kind) => (true, kind),
        _ => return Err("not a URL that begins with redis:// or rediss://".to_owned()),
    };
    let cluster = match kind {
        "" => false,
        "cluster" => true,
        "sentinel" => {
            return Err("Sentinel is not served yet; name the master with redis://, or a cluster \
                 with redis+cluster://"
                .to_owned());
        }
        _ => {
            let what = "after redis+ or rediss+ comes cluster, as in redis+cluster://h1:6379";
            return Err(what.to_owned());
        }
    };
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, p)| (Some(user), p));
    if place.contains(['?', '#']) {
        return Err("has a ? or # after the host; Redis URLs take no parameters here".to_owned());
    }
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    let nodes = hosts.split(',').map(node).collect::<Parsed<Vec<_>>>()?;
    if nodes.len() > 1 && !cluster {
        return Err("names several hosts; write redis+cluster:// for a cluster".to_owned());
    }
    let database = match database {
        "" => 0,
        digits => {
            digits.parse().ok().filter(|number| *number < DATABASES).ok_or_else(|| {
                "what follows the host is no database number, such as /0".to_owned()
            })?
        }
    };
    if cluster && database != 0 {
        return Err("a cluster has no database but 0".to_owned());
    }
    let (username, password) = credentials(user.unwrap_or_default())?;
    Ok(RedisUrl { cluster, tls, nodes, username, password, database })
}

fn node(text: &str) -> Parsed<(String, u16)> {
    let wrong = || "has no host such as 127.0.0.1:6379 or [::1]:6379".to_owned();
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        let host: Ipv6Addr = host.parse().map_err(|_| wrong())?;
        (host.to_string(), rest)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (host, rest) = text.split_at(end);
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(good) {
            return Err(wrong());
        }
        (host.to_ascii_lowercase(), rest)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => PORT,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    Ok((host, port))
}

/// `user`, `user:password` or `:password`, percent-encoded where they must be.
fn credentials(text: &str) -> Parsed<(Option<String>, Option<Secret>)> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text: &str| {
        let text = decoded(text).ok_or("its user or password is not percent-encoded as UTF-8")?;
        Ok::<_, String>(Some(text).filter(|text| !text.is_empty()))
    };
    Ok((decoded(user)?, decoded(password)?.map(Secret::new)))
}

/// The text with all but letters, digits and - . _ ~ as percent signs and digits.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

/// The text that a percent-encoded one stands for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        redis_url(text).expect("it is good")
    }

    #[test]
    fn every_form_is_read_and_shown_without_its_credentials() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://127.0.0.1:7000/3", "redis://127.0.0.1:7000/3"),
            ("rediss://:pw@Redis.Example/", "rediss://redis.example:6379/0"),
            ("redis://u:p%40w@[::1]:1", "redis://[::1]:1/0"),
            ("redis+cluster://a:1,b,[fe80::1]:2", "redis+cluster://a:1,b:6379,[fe80::1]:2"),
            ("rediss+cluster://u:p@a/0", "rediss+cluster://a:6379"),
        ] {
            let url = read(text);
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(redis_url(url.expose().expose()), Ok(url), "{text}");
        }
        let url = read("rediss://us%20er:p%2F@w/%C3%A9@h:1/9");
        assert_eq!(url.username.as_deref(), Some("us er"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p/@w/é"));
        assert_eq!((url.nodes.as_slice(), url.database), (&[("h".to_owned(), 1)][..], 9));
        assert!(url.tls && !url.cluster);
        let whole = "rediss://us%20er:p%2F%40w%2F%C3%A9@h:1/9";
        assert_eq!(url.expose().expose(), whole);
        let url = read("redis://user@h");
        assert_eq!((url.username.as_deref(), url.password), (Some("user"), None));
        assert!(!format!("{:?}", read("redis://:canary@h")).contains("canary"));
    }

    #[test]
    fn nothing_of_a_wrong_one_is_repeated() {
        for (text, says) in [
            ("canary", "begins with redis://"),
            ("http://u:canary@host", "begins with redis://"),
            ("Redis://canary", "begins with redis://"),
            ("redis+sentinel://u:canary@h:1/m", "Sentinel is not served yet"),
            ("rediss+sentinel://canary", "Sentinel is not served yet"),
            ("redis+unix:///canary", "comes cluster"),
            ("redis://", "no host"),
            ("redis://:canary@", "no host"),
            ("redis://:canary@h:", "no host"),
            ("redis://h:0", "no host"),
            ("redis://h:+1", "no host"),
            ("redis://h:99999", "no host"),
            ("redis://[canary]:1", "no host"),
            ("redis://[::1", "no host"),
            ("redis://[::1]1", "no host"),
            ("redis://ca nary", "no host"),
            ("redis+cluster://a,,b", "no host"),
            ("redis://a:1,b:1", "redis+cluster://"),
            ("redis://h/canary", "no database number"),
            ("redis://h/99999999999", "no database number"),
            ("redis+cluster://h/1", "no database but 0"),
            ("redis://h/0?canary=1", "no parameters"),
            ("redis://u:%zzcanary@h", "percent-encoded"),
            ("redis://u:%+1@h", "percent-encoded"),
            ("redis://u:%f@h", "percent-encoded"),
            ("redis://u:%ff@h", "percent-encoded"),
        ] {
            let what = redis_url(text).expect_err(text);
            assert!(what.contains(says) && !what.contains("canary"), "{text}: {what}");
        }
    }
}
