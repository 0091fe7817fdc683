//! T31f: every route with every wrong credential is refused, and no refusal shows a key.

use flotilla::provider::Endpoint;

use super::body_for;
use crate::support::client::{Response, ask, get, post};
use crate::support::node::Node;
use crate::support::wall::{Script, Wall};

const KEY: &str = "sk-acme-3f7a1c9e5b";
const OTHER: &str = "sk-other-9d2e8b4f60";
const EXPIRED: &str = "sk-old-0a1b2c3d4e";
const TOKEN: &str = "admin-token-77c1";

/// A header of a request: its name, and its value.
type Header<'a> = (&'a str, &'a str);

fn wall() -> Wall {
    Wall::always(Script::json(200, r#"{"object":"x"}"#))
}

fn node(wall: &Wall, env: &[(&str, &str)]) -> Node {
    let document = format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk-p }} }}
targets: {{ t: {{ provider: p }} }}
pools: {{ one: {{ tiers: [[t]] }}, two: {{ tiers: [[t]] }} }}
tenants: {{ acme: {{}}, other: {{}} }}
keys:
  - {{ name: acme, tenant: acme, key: {KEY}, models: [one] }}
  - {{ name: other, tenant: other, key: {OTHER}, models: [two] }}
  - {{ name: old, tenant: acme, key: {EXPIRED}, models: [one], expires: 2020-01-01T00:00:00Z }}
",
        wall.base_url("/v1")
    );
    Node::with(&document, env)
}

/// All routes of the data listener that need a key, asking for this model.
fn requests(query: &str, headers: &[Header<'_>], model: &str) -> Vec<Vec<u8>> {
    let mut requests = vec![
        get(&format!("/v1/models{query}"), headers),
        get(&format!("/v1/models/{model}{query}"), headers),
    ];
    for endpoint in Endpoint::ALL {
        let (content_type, body) = body_for(endpoint, model, false);
        let headers = [headers, &[("content-type", content_type)]].concat();
        requests.push(post(&format!("/v1{}{query}", endpoint.path()), &headers, body.as_bytes()));
    }
    requests
}

fn shows_no_secret(response: &Response) {
    let shown = format!("{:?}{}", response.headers, response.text());
    for secret in [KEY, OTHER, EXPIRED, TOKEN, "sk-p"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

async fn is_refused(node: &Node, request: &[u8], status: u16, code: &str) {
    let response = ask(node.data, request).await;
    let shown = String::from_utf8_lossy(request).into_owned();
    assert_eq!((response.status, response.code().as_str()), (status, code), "{shown}");
    shows_no_secret(&response);
}

// T31f
#[tokio::test]
async fn every_route_refuses_every_wrong_key() {
    let wall = wall();
    let node = node(&wall, &[("FLOTILLA_ADMIN_TOKEN", TOKEN)]);
    let bearer = |key: &str| format!("Bearer {key}");
    let (upper, prefix, longer) = (KEY.to_uppercase(), &KEY[..KEY.len() - 1], format!("{KEY}0"));
    let mut bearers: Vec<String> =
        ["garbage", "", "null", EXPIRED, TOKEN, "sk-p", &upper, prefix, &longer, "acme"]
            .map(bearer)
            .into();
    // The hash is what is stored: it must not be worth the key.
    bearers.push(bearer(&sha256_of_key()));
    bearers.extend([KEY.to_owned(), format!("Basic {KEY}"), format!("Token {KEY}")]);
    bearers.push(format!("Bearer {KEY}, Bearer {KEY}"));
    for value in &bearers {
        for request in requests("", &[("authorization", value)], "one") {
            is_refused(&node, &request, 401, "invalid_key").await;
        }
    }
    let cookie = format!("key={KEY}; authorization=Bearer {KEY}");
    let places: [(&str, Vec<Header<'_>>); 9] = [
        ("", vec![]),
        ("", vec![("cookie", &cookie)]),
        ("", vec![("proxy-authorization", &bearers[0])]),
        ("", vec![("x-auth-token", KEY), ("x-flotilla-key", KEY), ("token", KEY)]),
        (
            "?api_key=sk-acme-3f7a1c9e5b&Key=sk-acme-3f7a1c9e5b&access_token=sk-acme-3f7a1c9e5b",
            vec![],
        ),
        ("", vec![("x-api-key", "garbage")]),
        ("", vec![("api-key", EXPIRED)]),
        ("", vec![("x-goog-api-key", "Bearer sk-acme-3f7a1c9e5b")]),
        ("?key=garbage", vec![]),
    ];
    for (query, headers) in &places {
        for request in requests(query, headers, "one") {
            is_refused(&node, &request, 401, "invalid_key").await;
        }
    }
    assert_eq!(wall.connections(), 0, "no provider hears of it");
}

fn sha256_of_key() -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

// T31f
#[tokio::test]
async fn two_keys_that_differ_are_none() {
    let wall = wall();
    let node = node(&wall, &[]);
    let (mine, others) = (format!("Bearer {KEY}"), format!("Bearer {OTHER}"));
    for headers in [
        vec![("authorization", mine.as_str()), ("x-api-key", OTHER)],
        vec![("authorization", mine.as_str()), ("x-api-key", "")],
        vec![("authorization", mine.as_str()), ("authorization", others.as_str())],
        vec![("x-api-key", KEY), ("api-key", KEY), ("x-goog-api-key", OTHER)],
        vec![("x-api-key", KEY), ("x-api-key", OTHER)],
    ] {
        for request in requests("", &headers, "one") {
            is_refused(&node, &request, 401, "invalid_key").await;
        }
    }
    for query in [format!("?key={OTHER}"), format!("?key={KEY}&key={OTHER}")] {
        for request in requests(&query, &[("authorization", &mine)], "one") {
            is_refused(&node, &request, 401, "invalid_key").await;
        }
    }
    assert_eq!(wall.connections(), 0, "no provider hears of it");
    // The same one in all places is one.
    let all = [("authorization", mine.as_str()), ("x-api-key", KEY), ("api-key", KEY)];
    for request in requests(&format!("?key={KEY}"), &all, "one") {
        assert_eq!(ask(node.data, &request).await.status, 200);
    }
}

// T31f
#[tokio::test]
async fn what_belongs_to_another_tenant_is_out_of_reach() {
    let wall = wall();
    let node = node(&wall, &[]);
    let mine = [("x-api-key", KEY)];
    for endpoint in Endpoint::ALL {
        let path = format!("/v1{}", endpoint.path());
        for (model, status, code) in
            [("two", 403, "model_not_allowed"), ("none", 404, "model_not_found")]
        {
            let (content_type, body) = body_for(endpoint, model, false);
            let headers = [mine[0], ("content-type", content_type)];
            is_refused(&node, &post(&path, &headers, body.as_bytes()), status, code).await;
        }
    }
    assert_eq!(wall.connections(), 0, "no provider hears of it");
    let response = ask(node.data, &get("/v1/models", &mine)).await;
    assert_eq!(response.status, 200);
    let models = &response.json()["data"];
    assert_eq!(models.as_array().map(Vec::len), Some(1), "{models}");
    assert_eq!(models[0]["id"], "one");
    shows_no_secret(&response);
    is_refused(&node, &get("/v1/models/two", &mine), 404, "model_not_found").await;
    // What is not served is not served to anybody, and says so before it asks who wants it.
    for headers in [&[][..], &mine, &[("x-api-key", "garbage")]] {
        for path in ["/v1/files", "/v1/batches", "/v1/responses", "/admin/v1/keys", "/metrics"] {
            is_refused(&node, &post(path, headers, b"{}"), 404, "endpoint_not_served").await;
            is_refused(&node, &get(path, headers), 404, "endpoint_not_served").await;
        }
    }
}

const ADMIN: [&str; 12] = [
    "/admin/v1",
    "/admin/v1/",
    "/admin/v1/keys",
    "/admin/v1/keys/acme",
    "/admin/v1/keys/acme/rotate",
    "/admin/v1/document",
    "/admin/v1/revisions",
    "/admin/v1/nodes/x/drain",
    "/admin/v1/targets/t",
    "/admin/v1/usage?by=key",
    "/admin/v1/limits?key=acme",
    "/admin/v1/nothing",
];

/// All methods of all admin routes.
fn admin_requests(headers: &[Header<'_>]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for path in ADMIN {
        let post = post(path, headers, b"{}");
        for method in ["PUT", "PATCH", "DELETE"] {
            let text = String::from_utf8_lossy(&post).replacen("POST", method, 1);
            requests.push(text.into_bytes());
        }
        requests.extend([get(path, headers), post]);
    }
    requests
}

async fn admin_is(node: &Node, headers: &[Header<'_>], status: u16, code: &str) {
    for request in admin_requests(headers) {
        let response = ask(node.admin, &request).await;
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert_eq!((response.status, response.code().as_str()), (status, code), "{shown}");
        shows_no_secret(&response);
    }
}

// T31f
#[tokio::test]
async fn the_admin_api_is_off_without_a_token() {
    let wall = wall();
    let node = node(&wall, &[]);
    let bearer = format!("Bearer {KEY}");
    for headers in [&[][..], &[("authorization", "Bearer ")], &[("authorization", &bearer)]] {
        admin_is(&node, headers, 403, "admin_disabled").await;
    }
    for path in ["/livez", "/readyz", "/metrics", "/healthz"] {
        let response = ask(node.admin, &get(path, &[])).await;
        assert_eq!(response.status, 200, "{path}");
        shows_no_secret(&response);
    }
}

// T31f
#[tokio::test]
async fn the_admin_api_takes_its_token_and_nothing_else() {
    let wall = wall();
    let node = node(&wall, &[("FLOTILLA_ADMIN_TOKEN", TOKEN)]);
    let bearer = |token: &str| format!("Bearer {token}");
    let right = bearer(TOKEN);
    let wrong = ["", "garbage", KEY, &TOKEN.to_uppercase(), &TOKEN[..TOKEN.len() - 1]].map(bearer);
    for value in wrong.iter().map(String::as_str).chain([TOKEN, "Basic YWRtaW46YWRtaW4="]) {
        admin_is(&node, &[("authorization", value)], 401, "invalid_token").await;
    }
    for headers in [
        &[][..],
        &[("x-api-key", TOKEN), ("cookie", &right)],
        &[("authorization", &right), ("authorization", &wrong[1])],
    ] {
        admin_is(&node, headers, 401, "invalid_token").await;
    }
    for request in admin_requests(&[("authorization", &right)]) {
        let response = ask(node.admin, &request).await;
        assert!(!matches!(response.status, 401 | 403), "{response:?}");
        shows_no_secret(&response);
    }
    is_refused(&node, &get("/v1/models", &[("authorization", &right)]), 401, "invalid_key").await;
}
