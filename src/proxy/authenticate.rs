//! Phase: find out who asks, from the snapshot alone, so that an unknown key costs no look-up.

use std::borrow::Cow;
use std::sync::Arc;

use actix_http::header::{self, HeaderMap, HeaderName};

use crate::domain::{Code, Fault, KeyHash};
use crate::snapshot::{Key, Snapshot};

/// The headers that may hold the bare credential, beside `Authorization: Bearer`.
const CREDENTIAL_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The key that the request bears. While no keys are configured, everybody is the tenant
/// `default`, whatever they present.
///
/// # Errors
/// `invalid_key`: none, several that differ, unknown, or expired. The text does not tell an
/// unknown key from an expired one more than the owner of an expired one needs.
pub(super) fn authenticate(
    snapshot: &Snapshot,
    headers: &HeaderMap,
    query: &str,
    now_unix: i64,
) -> Result<Arc<Key>, Fault> {
    if !snapshot.has_keys() {
        return Ok(Arc::clone(&snapshot.anonymous));
    }
    let credential = credential(headers, query)?;
    let Some(key) = snapshot.keys.get(&KeyHash::of(&credential)) else {
        return Err(invalid("this API key is not valid"));
    };
    if key.expires.is_some_and(|expires| expires <= now_unix) {
        return Err(invalid("this API key has expired"));
    }
    Ok(Arc::clone(key))
}

fn invalid(message: &'static str) -> Fault {
    Fault::new(Code::InvalidKey, message)
}

/// The one credential that the request carries, wherever it stands.
fn credential<'a>(headers: &'a HeaderMap, query: &'a str) -> Result<Cow<'a, [u8]>, Fault> {
    let mut found: Option<Cow<'a, [u8]>> = None;
    let mut take = |credential: Cow<'a, [u8]>| match &found {
        Some(other) if *other != credential => {
            Err(invalid("the request carries several API keys that differ; send one"))
        }
        _ => {
            found = Some(credential);
            Ok(())
        }
    };
    for value in headers.get_all(header::AUTHORIZATION) {
        let bearer = value.as_bytes().split_at_checked(7);
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some((_, credential)) = bearer else {
            return Err(invalid("the Authorization header must be: Bearer <API key>"));
        };
        take(Cow::Borrowed(credential.trim_ascii()))?;
    }
    for name in &CREDENTIAL_HEADERS {
        for value in headers.get_all(name) {
            take(Cow::Borrowed(value.as_bytes().trim_ascii()))?;
        }
    }
    for pair in query.split('&') {
        if let Some(value) = pair.strip_prefix("key=") {
            take(percent_decode(value.as_bytes()))?;
        }
    }
    found
        .filter(|credential| !credential.is_empty())
        .ok_or_else(|| invalid("no API key; send Authorization: Bearer <API key>"))
}

/// Undoes percent-encoding; what is no valid escape stays as it is, and then matches no key.
fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, digit(tail.first()), digit(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests;
