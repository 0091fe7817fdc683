//! What operators are told of usage and of limits: `GET /admin/v1/usage` and `/admin/v1/limits`.

use serde_json::Value;

use crate::support::client::{Response, ask, get, post};
use crate::support::node::Node;
use crate::support::wall::{Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const TOKEN: (&str, &str) = ("authorization", "Bearer of-the-operator");

fn document(wall: &Wall) -> String {
    format!(
        "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v, price: {{ input: 1, output: 2 }} }} }}
pools: {{ p: {{ tiers: [[t]] }}, q: {{ tiers: [[t]] }} }}
tenants: {{ acme: {{ budget: {{ limit: \"5 USD\", period: month }} }} }}
keys:
  - {{ name: one, tenant: acme, key: secret-one }}
  - {{ name: two, tenant: acme, key: secret-two }}
limits:
  - {{ name: rpm, scope: key, metric: requests, limit: 4, window: 1h }}
  - {{ name: tpm, scope: tenant, metric: tokens, algorithm: token_bucket, limit: 10000, window: 1h }}
  - {{ name: each, scope: [key, user], metric: requests, limit: 9, window: 1h }}
",
        wall.base_url("/v1")
    )
}

async fn chat(node: &Node, key: &str, model: &str) -> Response {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("x-flotilla-user", "ann")];
    let body = format!(r#"{{"model":"{model}","max_tokens":50,"messages":[]}}"#);
    ask(node.data, &post("/v1/chat/completions", &headers, body.as_bytes())).await
}

async fn admin(node: &Node, path: &str) -> (u16, Value) {
    let response = ask(node.admin, &get(path, &[TOKEN])).await;
    (response.status, response.json())
}

fn node(wall: &Wall) -> Node {
    Node::with(&document(wall), &[("FLOTILLA_ADMIN_TOKEN", "of-the-operator")])
}

#[tokio::test]
async fn usage_is_what_the_providers_told_summed_up_as_asked_for() {
    let wall = Wall::start(|attempt| match attempt.json()["model"].as_str() {
        Some("q") => Script::json(500, r#"{"error":{"message":"no"}}"#),
        _ => Script::json(200, ANSWER),
    });
    let node = node(&wall);
    for (key, model) in [("one", "p"), ("one", "p"), ("two", "p"), ("two", "q")] {
        chat(&node, &format!("secret-{key}"), model).await;
    }
    let (status, body) = admin(&node, "/admin/v1/usage?by=tenant,key,model").await;
    assert_eq!(status, 200, "{body}");
    let row = |key: &str, model: &str| {
        let rows = body["rows"].as_array().expect("rows").iter();
        let mut found = rows.filter(|row| row["key"] == key && row["model"] == model);
        found.next().expect("a row of this key and model").clone()
    };
    let one = row("one", "p");
    assert_eq!((&one["tenant"], &one["requests"]), (&"acme".into(), &2.into()));
    assert_eq!((&one["input_tokens"], &one["output_tokens"]), (&20.into(), &10.into()));
    assert_eq!((&one["cost_micro_usd"], &one["errors"]), (&40.into(), &0.into()));
    let failed = row("two", "q");
    assert_eq!((&failed["requests"], &failed["errors"]), (&1.into(), &1.into()));
    let (_, all) = admin(&node, "/admin/v1/usage?by=tenant").await;
    assert_eq!(all["rows"].as_array().map(Vec::len), Some(1), "{all}");
    assert_eq!(all["rows"][0]["requests"], 4);
    let (status, _) = admin(&node, "/admin/v1/usage?by=tenant&from=2020-01-01T00:00:00Z").await;
    assert_eq!(status, 400, "too long a time");
}

#[tokio::test]
async fn limits_tell_how_they_stand_for_a_key() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let node = node(&wall);
    for _ in 0..3 {
        assert_eq!(chat(&node, "secret-one", "p").await.status, 200);
    }
    let (status, body) = admin(&node, "/admin/v1/limits?key=one&user=ann").await;
    assert_eq!(status, 200, "{body}");
    let limit = |name: &str| {
        let mut all = body["limits"].as_array().expect("limits").iter();
        all.find(|limit| limit["name"] == name).expect("a limit of this name")
    };
    assert_eq!((&limit("rpm")["used"], &limit("rpm")["left"]), (&3.into(), &1.into()));
    assert_eq!(limit("each")["used"], 3);
    assert_eq!(limit("tpm")["used"], 45, "{body}");
    assert_eq!(limit("budget of tenant acme")["used"], 60);
    // Without the user nobody knows which counter is meant.
    let (_, body) = admin(&node, "/admin/v1/limits?key=one").await;
    let each = body["limits"].as_array().expect("limits").iter().find(|l| l["name"] == "each");
    assert_eq!(each.expect("listed all the same")["used"], Value::Null);
    for (path, status) in [
        ("/admin/v1/limits", 400),
        ("/admin/v1/limits?key=nobody", 404),
        ("/admin/v1/limits?keys=one", 400),
        ("/admin/v1/usage?by=colour", 400),
    ] {
        assert_eq!(admin(&node, path).await.0, status, "{path}");
    }
    let nobody = ask(node.admin, &get("/admin/v1/usage", &[])).await;
    assert_eq!(nobody.status, 401);
}
