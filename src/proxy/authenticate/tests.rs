//! Where a credential may stand, and what is refused.

use actix_http::header::HeaderValue;

use super::super::testing;
use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
    }
    headers
}

fn ask(pairs: &[(&str, &str)], query: &str) -> Result<String, Fault> {
    let snapshot =
        testing::snapshot_with_keys(&[("alice", "sk-a", None), ("old", "sk-o", Some(50))]);
    authenticate(&snapshot, &headers(pairs), query, 100).map(|key| key.name.to_string())
}

#[test]
fn a_key_is_found_wherever_clients_put_it() {
    assert_eq!(ask(&[("authorization", "Bearer sk-a")], ""), Ok("alice".into()));
    assert_eq!(ask(&[("authorization", "bearer  sk-a ")], ""), Ok("alice".into()));
    for name in &CREDENTIAL_HEADERS {
        assert_eq!(ask(&[(name.as_str(), "sk-a")], ""), Ok("alice".into()), "{name}");
    }
    assert_eq!(ask(&[], "alt=sse&key=sk-a"), Ok("alice".into()));
    assert_eq!(ask(&[], "key=sk%2Da"), Ok("alice".into()));
    assert_eq!(
        ask(&[("x-api-key", "sk-a"), ("authorization", "Bearer sk-a")], ""),
        Ok("alice".into())
    );
}

// T31f: none, garbage and expired are refused alike.
#[test]
fn everything_else_is_an_invalid_key() {
    for (pairs, query) in [
        (vec![], ""),
        (vec![("authorization", "Bearer ")], ""),
        (vec![("authorization", "Basic c2stYQ==")], ""),
        (vec![("authorization", "Bearer sk-x")], ""),
        (vec![("authorization", "Bearer sk-o")], ""),
        (vec![("authorization", "Bearer sk-a"), ("x-api-key", "sk-o")], ""),
        (vec![("authorization", "Bearer sk-a"), ("authorization", "Bearer sk-b")], ""),
        (vec![("x-api-key", "sk-a")], "key=sk-b"),
        (vec![], "key=%"),
        (vec![], "Key=sk-a"),
    ] {
        let refused = ask(&pairs, query).expect_err("must be refused");
        assert_eq!(refused.code, Code::InvalidKey, "{pairs:?} {query}");
    }
}

#[test]
fn without_keys_everybody_is_the_default_tenant() {
    let snapshot = testing::snapshot_with_keys(&[]);
    let key = authenticate(&snapshot, &headers(&[("x-api-key", "any")]), "", 0).expect("open");
    assert_eq!(&*key.tenant.name, "default");
}
