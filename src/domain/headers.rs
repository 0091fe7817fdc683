//! The headers of a message to or from a provider.
//!
//! There are a dozen of them, each written once and read once or twice: a list is made and searched
//! faster than a table of several kilobytes, as servers keep one, is filled.

use actix_http::header::{HeaderName, HeaderValue};

/// Headers in order; a name may stand more than once.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, with room for so many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds a header behind those that are there.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Puts a header in place of all of its name.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, value));
    }

    /// The first value of this name.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&HeaderValue> {
        self.get_all(name).next()
    }

    /// All values of this name, which is in lower case.
    pub fn get_all(&self, name: impl AsRef<str>) -> impl Iterator<Item = &HeaderValue> {
        let named = move |header: &&(HeaderName, HeaderValue)| header.0.as_str() == name.as_ref();
        self.0.iter().filter(named).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_twice_until_it_is_replaced() {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let mut headers = Headers::with_capacity(3);
        for (name, value) in [(&a, "1"), (&b, "2"), (&a, "3")] {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        assert_eq!(headers.get_all("a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(
            (headers.get("b"), headers.get("c")),
            (Some(&HeaderValue::from_static("2")), None)
        );
        headers.insert(a, HeaderValue::from_static("4"));
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(
            all,
            [("b", &HeaderValue::from_static("2")), ("a", &HeaderValue::from_static("4"))]
        );
        assert!(headers.len() == 2 && !headers.is_empty());
    }
}
