//! The text of every key: built here and nowhere else. `lua/README.md` has the table.
//!
//! `<prefix>:v1:{<tag>}:<noun>[:<rest>]`: the version comes second, so that a new shape of a value
//! is a new key; the tag third and in braces, so that all keys of a tag are on one slot.

use std::fmt::Write;

use crate::policy::limit::LimitId;

/// What shape the values have.
const VERSION: &str = "v1";

/// The tag of the registry of nodes.
const FLEET: &str = "fleet";

/// The keys of one fleet.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: Box<str>,
}

/// The keys of one tag.
#[derive(Debug)]
pub(crate) struct TagKeys {
    start: String,
}

impl Keys {
    /// Keys that all begin with this prefix.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: escaped(prefix).into() }
    }

    /// Those of a tag.
    pub(crate) fn tag(&self, tag: &str) -> TagKeys {
        TagKeys { start: format!("{}:{VERSION}:{{{}}}:", self.prefix, escaped(tag)) }
    }

    /// The registry: node incarnations by their expiry.
    pub(crate) fn nodes(&self) -> String {
        self.tag(FLEET).noun("nodes")
    }

    /// What nodes say about themselves.
    pub(crate) fn descriptions(&self) -> String {
        self.tag(FLEET).noun("descriptions")
    }

    /// The tags that a node uses.
    pub(crate) fn tags(&self, incarnation: u64) -> String {
        self.tag(FLEET).noun(&format!("tags:{}", incarnation_text(incarnation)))
    }
}

/// How an incarnation is written, in keys and in the registry.
pub(crate) fn incarnation_text(incarnation: u64) -> String {
    format!("{incarnation:016x}")
}

impl TagKeys {
    /// The states of one scope's limits.
    pub(crate) fn scope(&self, scope: &str) -> String {
        self.key(&["scope:", scope])
    }

    /// The permits of one limit in one scope.
    pub(crate) fn permits(&self, limit: LimitId, scope: &str) -> String {
        self.key(&["permits:", limit.as_str(), ":", scope])
    }

    /// The members by the end of their leases.
    pub(crate) fn open(&self) -> String {
        self.noun("open")
    }

    /// What the members reserved.
    pub(crate) fn held(&self) -> String {
        self.noun("held")
    }

    /// Ids that are known until their admit's deadline.
    pub(crate) fn seen(&self) -> String {
        self.noun("seen")
    }

    /// Members swept on a day (Unix time in days).
    pub(crate) fn lost(&self, day: u64) -> String {
        self.noun(&format!("lost:{day}"))
    }

    /// Usage of an hour (Unix time in hours).
    pub(crate) fn usage(&self, hour: u64) -> String {
        self.noun(&format!("usage:{hour}"))
    }

    /// The last batch of an incarnation.
    pub(crate) fn batch(&self, incarnation: u64) -> String {
        self.noun(&format!("batch:{}", incarnation_text(incarnation)))
    }

    fn noun(&self, rest: &str) -> String {
        [&self.start, rest].concat()
    }

    /// A key of parts, some of which hold names.
    fn key(&self, parts: &[&str]) -> String {
        let len = self.start.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = String::with_capacity(len);
        key.push_str(&self.start);
        parts.iter().for_each(|part| escape(part, &mut key));
        key
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape(text, &mut escaped);
    escaped
}

/// Everything but letters, digits and what joins the parts of a name, percent-encoded: a brace
/// would move the tag. No two texts become the same.
fn escape(text: &str, to: &mut String) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:=,".contains(&byte);
    if text.bytes().all(is_plain) {
        to.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if is_plain(byte) {
            to.push(char::from(byte));
        } else {
            write!(to, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_prefix_version_tag_and_noun() {
        let keys = Keys::new("flotilla");
        let tag = keys.tag("t:acme");
        assert_eq!(tag.scope("key=acme-prod"), "flotilla:v1:{t:acme}:scope:key=acme-prod");
        let id = LimitId(*b"0123abcd");
        assert_eq!(tag.permits(id, "tenant"), "flotilla:v1:{t:acme}:permits:0123abcd:tenant");
        assert_eq!(tag.batch(255), "flotilla:v1:{t:acme}:batch:00000000000000ff");
        assert_eq!(keys.nodes(), "flotilla:v1:{fleet}:nodes");
    }

    #[test]
    fn a_name_cannot_leave_its_tag_or_become_another() {
        let keys = Keys::new("a{b}");
        let key = keys.tag("t:x}:y{").scope("s:{z}");
        assert_eq!(key, "a%7Bb%7D:v1:{t:x%7D:y%7B}:scope:s:%7Bz%7D");
        assert_ne!(escaped("a%7D"), escaped("a}"));
    }
}
