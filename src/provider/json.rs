//! Reads one level of a JSON object without building a tree, and knows where its parts stand.
//!
//! Values are skipped, not built: that is iterative (nesting costs no stack) and borrows all text,
//! so a body of many megabytes costs one pass and hardly an allocation.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One member of an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// The key, unescaped.
    pub(super) key: Cow<'a, str>,
    /// The key as it stands in the text, quotes included.
    pub(super) key_text: &'a str,
    /// The value as it stands in the text.
    pub(super) value: &'a RawValue,
}

impl<'a> Member<'a> {
    /// The value, unless it is `null`.
    pub(super) fn given(&self) -> Option<&'a RawValue> {
        Some(self.value).filter(|value| value.get() != "null")
    }
}

/// Hands each member of the object `text` to `visit`, in order; duplicates are all handed over.
///
/// # Errors
/// Where `text` is not exactly one JSON object.
pub(super) fn members<'a>(
    text: &'a str,
    visit: impl FnMut(Member<'a>),
) -> Result<(), serde_json::Error> {
    let mut source = serde_json::Deserializer::from_str(text);
    source.deserialize_map(Members(visit))?;
    source.end()
}

/// Hands each element of the array `text` to `visit`, in order.
///
/// # Errors
/// Where `text` is not exactly one JSON array.
pub(super) fn elements<'a>(
    text: &'a str,
    visit: impl FnMut(&'a RawValue),
) -> Result<(), serde_json::Error> {
    let mut source = serde_json::Deserializer::from_str(text);
    source.deserialize_seq(Elements(visit))?;
    source.end()
}

/// Where `part`, a slice of `whole`, stands in it.
pub(super) fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The text of a JSON string; `None` for any other value and for one that holds half a character.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

struct Members<F>(F);

impl<'de, F: FnMut(Member<'de>)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&'de RawValue>()? {
            let key_text = key.get();
            let value = map.next_value()?;
            let key = string(key_text)
                .ok_or_else(|| serde::de::Error::custom("a key holds half a character"))?;
            (self.0)(Member { key, key_text, value });
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_with_their_places() {
        let text = r#" { "a" : [1, {"b":2}] , "mod\u0065l":"x" } "#;
        let mut seen = Vec::new();
        members(text, |m| {
            seen.push((
                m.key.into_owned(),
                span(text, m.key_text),
                &text[span(text, m.value.get())],
            ));
        })
        .expect("valid");
        assert_eq!(seen[0], ("a".to_owned(), 3..6, r#"[1, {"b":2}]"#));
        assert_eq!((seen[1].0.as_str(), seen[1].2), ("model", r#""x""#));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in ["", "[]", "{", "{}{}", "{\"a\":1,}", "{\"\\ud800\":1}", "{a:1}", "null"] {
            assert!(members(text, |_| {}).is_err(), "{text}");
        }
    }
}
