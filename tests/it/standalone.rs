//! Limits on one node without a Redis: the twin answers, and it is exact.

use std::time::Duration;

use crate::support::client::{Client, Response, ask, ask_chat, chat, post};
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

/// A document with these walls as targets `t0`, `t1`, ..., a tier each, of pool `p`, and more.
fn document(walls: &[&Wall], targets: &[&str], more: &str) -> String {
    let mut text = "providers:\n".to_owned();
    for (number, wall) in walls.iter().enumerate() {
        let url = wall.base_url("/v1");
        text += &format!("  v{number}: {{ protocol: openai, base_url: \"{url}\", api_key: sk }}\n");
    }
    text += "targets:\n";
    for (number, _) in walls.iter().enumerate() {
        let settings = targets.get(number).copied().unwrap_or_default();
        text += &format!("  t{number}: {{ provider: v{number}{settings} }}\n");
    }
    let tiers: Vec<_> = (0..walls.len()).map(|number| format!("[t{number}]")).collect();
    text + &format!("pools: {{ p: {{ tiers: [{}] }} }}\n{more}", tiers.join(", "))
}

async fn ask_n(node: &Node, count: usize) -> Vec<Response> {
    futures_util::future::join_all((0..count).map(|_| ask_chat(node.data, "p", false))).await
}

fn admitted(responses: &[Response]) -> usize {
    responses.iter().filter(|response| response.status == 200).count()
}

fn number(response: &Response, header: &str) -> u64 {
    let value = response.header(header).and_then(|value| value.parse().ok());
    value.expect(header)
}

// T1, the part of one node.
#[tokio::test]
async fn a_limit_of_requests_is_met_to_the_request() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let limits = "limits: [{ name: rpm, scope: tenant, metric: requests, limit: 20, window: 1h }]";
    let node = Node::serving(&document(&[&wall], &[], limits));
    let responses = ask_n(&node, 60).await;
    assert_eq!((admitted(&responses), wall.count()), (20, 20));
    for refused in responses.iter().filter(|response| response.status != 200) {
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
        assert!(number(refused, "retry-after") > 3000, "{}", refused.text());
        assert_eq!(number(refused, "x-ratelimit-remaining-requests"), 0);
    }
    let mut left: Vec<_> = responses
        .iter()
        .filter(|response| response.status == 200)
        .map(|response| number(response, "x-ratelimit-remaining-requests"))
        .collect();
    left.sort_unstable();
    assert_eq!(left, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_request_is_admitted_when_it_was_told_to_come_back() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let limits = "limits: [{ name: l, scope: key, metric: requests, limit: 2, window: 600ms }]";
    let node = Node::serving(&document(&[&wall], &[], limits));
    let responses = ask_n(&node, 3).await;
    let refused = responses.iter().find(|response| response.status == 429).expect("one too many");
    let wait = Duration::from_millis(number(refused, "retry-after-ms"));
    assert!(wait <= Duration::from_millis(611), "{wait:?}");
    tokio::time::sleep(wait).await;
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
}

#[tokio::test]
async fn a_permit_is_held_until_the_stream_ends_or_its_client_leaves() {
    let gate = Gate::new();
    let script = Script::sse_head()
        .event(r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#)
        .wait(&gate)
        .done();
    let wall = Wall::always(script);
    let limits = "limits: [{ name: slots, scope: tenant, metric: concurrency, limit: 2 }]";
    let node = Node::serving(&document(&[&wall], &[], limits));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(node.data).await;
        client.send(&post("/v1/chat/completions", &[], &chat("p", true))).await;
        assert_eq!(client.head().await.status, 200);
        clients.push(client);
    }
    let refused = ask_chat(node.data, "p", true).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "concurrency_limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    clients.pop().expect("two of them").reset();
    eventually(DEADLINE, || node.metric("flotilla_requests_in_flight") < 2.0).await;
    gate.open();
    assert_eq!(ask_chat(node.data, "p", true).await.status, 200, "its place is free");
}

// T2, the part of one node: what is reserved counts at once, and what was not used comes back.
#[tokio::test]
async fn tokens_are_reserved_before_the_call_and_settled_to_the_truth() {
    let gate = Gate::new();
    let wall = Wall::always(Script::new().wait(&gate).then(Script::json(200, ANSWER)));
    let limits = "limits: [{ name: tpm, scope: tenant, metric: tokens, limit: 1000, window: 1h }]";
    let node = Node::serving(&document(&[&wall], &[], limits));
    let body = br#"{"model":"p","max_tokens":300,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = post("/v1/chat/completions", &[], body);
    let asked = futures_util::future::join_all((0..10).map(|_| ask(node.data, &request)));
    let watch = async {
        eventually(DEADLINE, || wall.count() == 3).await;
        gate.open();
    };
    let (responses, ()) = tokio::join!(asked, watch);
    assert_eq!((admitted(&responses), wall.count()), (3, 3), "three times about 320 fit");
    let refused = responses.iter().find(|response| response.status == 429).expect("the others");
    assert_eq!(refused.code(), "tokens_limited");
    // Three answers of 15 tokens were used.
    let response = ask(node.data, &request).await;
    assert_eq!(response.status, 200);
    let left = number(&response, "x-ratelimit-remaining-tokens");
    assert!((600..1000 - 45 - 300).contains(&left), "{left}");
    let body = br#"{"model":"p","max_tokens":3000,"messages":[]}"#;
    let too_much = ask(node.data, &post("/v1/chat/completions", &[], body)).await;
    assert_eq!((too_much.status, too_much.code().as_str()), (413, "request_exceeds_limit"));
    assert_eq!(too_much.header("retry-after"), None);
}

fn long_stream(pieces: usize) -> Script {
    let text = "x".repeat(400);
    let event = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#);
    let script = (0..pieces).fold(Script::sse_head(), |script, _| script.event(&event));
    script.event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#).done()
}

#[tokio::test]
async fn a_stream_that_outruns_its_reservation_ends_where_a_hard_limit_is_reached() {
    for (hard, complete) in [(true, false), (false, true)] {
        let wall = Wall::always(long_stream(40));
        let limits = format!(
            "limits: [{{ name: tpm, scope: tenant, metric: output_tokens, limit: 2000, window: 1h, hard: {hard} }}]"
        );
        let node = Node::serving(&document(&[&wall], &[], &limits));
        // 4,000 tokens come where 100 were announced.
        let body = br#"{"model":"p","max_tokens":100,"stream":true,"messages":[]}"#;
        let response = ask(node.data, &post("/v1/chat/completions", &[], body)).await;
        assert_eq!(response.complete, complete, "{}", response.text());
        let text = response.text();
        assert_eq!(text.contains("\"code\":\"stream_interrupted\""), hard);
        assert!(text.matches('x').count() >= 1900 * 4, "what was paid for is given");
        // What was used stands, even over the limit.
        let next = ask(node.data, &post("/v1/chat/completions", &[], body)).await;
        assert_eq!(next.code(), "tokens_limited", "{}", next.text());
    }
}

#[tokio::test]
async fn a_target_over_its_limit_makes_way_for_another() {
    let walls = [Script::json(200, ANSWER), Script::json(200, ANSWER)].map(Wall::always);
    let limit = ", limits: [{ metric: requests, limit: 3, window: 1h }]";
    let node = Node::serving(&document(&[&walls[0], &walls[1]], &[limit, limit], ""));
    let responses = ask_n(&node, 10).await;
    assert_eq!((admitted(&responses), walls[0].count(), walls[1].count()), (6, 3, 3));
    let refused = responses.iter().find(|response| response.status == 429).expect("four of them");
    assert_eq!(refused.code(), "rate_limited");
    assert!(refused.text().contains("t0/requests/1h"), "{}", refused.text());
}

// T6: what a fallback costs is asked for like everything else.
#[tokio::test]
async fn a_budget_that_is_used_up_keeps_the_paid_fallback_out() {
    let failing = Wall::always(Script::json(503, r#"{"error":{"message":"down"}}"#));
    let paid = Wall::always(Script::json(200, ANSWER));
    let more = "tenants: { acme: { budget: { limit: \"0.000001 USD\", period: day } } }
keys: [{ name: k, tenant: acme, key: secret-of-acme }]";
    let price = ", price: { input: 100, output: 100 }";
    let node = Node::serving(&document(&[&failing, &paid], &["", price], more));
    let body = br#"{"model":"p","messages":[{"role":"user","content":"hi"}]}"#;
    let key = [("authorization", "Bearer secret-of-acme")];
    let response = ask(node.data, &post("/v1/chat/completions", &key, body)).await;
    assert_eq!(response.status, 503, "the failure of the one that was asked: {}", response.text());
    assert_eq!(paid.count(), 0);
}

#[tokio::test]
async fn a_budget_says_that_no_retry_helps() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let more = "tenants: { acme: { budget: { limit: \"0.01 USD\", period: month } } }
keys: [{ name: k, tenant: acme, key: secret-of-acme }]";
    let node = Node::serving(&document(&[&wall], &[", price: { input: 0, output: 400 }"], more));
    let body = br#"{"model":"p","max_tokens":20,"messages":[]}"#;
    let key = [("authorization", "Bearer secret-of-acme")];
    let request = post("/v1/chat/completions", &key, body);
    // An answer of 5 tokens costs 0.002 USD, and 0.008 USD are reserved for it: two fit.
    for _ in 0..2 {
        assert_eq!(ask(node.data, &request).await.status, 200);
    }
    let refused = ask(node.data, &request).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "budget_exceeded"));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(wall.count(), 2);
}
