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

async fn explain(node: &Node, question: &str) -> (u16, Value) {
    let request = post("/admin/v1/explain", &[TOKEN], question.as_bytes());
    let response = ask(node.admin, &request).await;
    (response.status, response.json())
}

// Issue 5: the stated bound of each policy is printed.
#[tokio::test]
async fn what_holds_while_redis_is_away_is_explained_with_redis_and_without() {
    use crate::support::redis::{self, Kind, Server};
    let wall = Wall::always(Script::json(200, ANSWER));
    let document = document(&wall)
        .replace("limit: 4, window: 1h }", "limit: 4, window: 1h, degraded: fail_closed }");
    let (mut server, prefix) = (Server::start_as(Kind::Redis7, &[]), redis::prefix());
    let url = server.url();
    let env = [
        ("FLOTILLA_ADMIN_TOKEN", "of-the-operator"),
        ("FLOTILLA_REDIS_URL", url.as_str()),
        ("FLOTILLA_REDIS_PREFIX", prefix.as_str()),
    ];
    let node = Node::with(&document, &env);
    let question = r#"{"key":"one","model":"p"}"#;
    for (answers, used) in [(true, Value::from(0)), (false, Value::Null)] {
        let (status, body) = explain(&node, question).await;
        assert_eq!((status, &body["store_answers"]), (200, &Value::Bool(answers)), "{body}");
        let limits = body["limits"].as_array().expect("limits");
        let of = |name: &str| {
            let found = limits.iter().find(|limit| limit["name"] == name);
            found.unwrap_or_else(|| unreachable!("{name} in {body}"))
        };
        let away = |name: &str| &of(name)["if_store_is_away"];
        assert_eq!(of("rpm")["used"], used);
        assert_eq!(
            (&away("rpm")["policy"], &away("rpm")["bound"]),
            (&"fail_closed".into(), &0.into())
        );
        assert_eq!(
            (&away("tpm")["share"], &away("tpm")["bound"]),
            (&10_000.into(), &20_000.into())
        );
        assert_eq!(away("budget of tenant acme")["bound"], 50_000);
        assert!(away("tpm")["text"].as_str().expect("a text").contains("10000"));
        server.kill();
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_refused() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let node = node(&wall);
    let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(70_000));
    for (question, status) in
        [("{", 400), (r#"{"kee":"one"}"#, 400), (r#"{"key":"no"}"#, 404), (&long, 413)]
    {
        assert_eq!(explain(&node, question).await.0, status, "{}", question.len());
    }
    let (status, body) = explain(&node, r#"{"key":"one"}"#).await;
    assert_eq!((status, &body["limits"][0]["if_store_is_away"]), (200, &Value::Null), "{body}");
    assert_eq!(admin(&node, "/admin/v1/explain").await.0, 405);
}

#[tokio::test]
async fn the_command_prints_the_limits_and_ends_with_the_code_of_the_contract() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let node = node(&wall);
    let run = |url: String, token: Option<&str>, key: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(["explain", "--limits", "--key", key]).env_clear();
        command.env("FLOTILLA_ADMIN_URL", url);
        if let Some(token) = token {
            command.env("FLOTILLA_ADMIN_TOKEN", token);
        }
        let output = command.output().expect("it runs");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let url = format!("http://{}", node.admin);
    let (code, out, err) = run(url.clone(), Some("of-the-operator"), "one");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.starts_with("key one of tenant acme\n\nrpm: 4 requests in any 3600 s, per key\n"),
        "{out}"
    );
    assert!(out.contains("  used  0, left 4\n"), "{out}");
    for (url, token, key, code) in [
        (url.clone(), Some("of-the-operator"), "nobody", 1),
        (url.clone(), Some("of-nobody"), "one", 1),
        (url, None, "one", 64),
        ("http://127.0.0.1:1".to_owned(), Some("of-the-operator"), "one", 69),
    ] {
        let (found, out, err) = run(url, token, key);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{err}");
        assert!(err.starts_with("flotilla: ") && err.lines().count() == 1, "{err}");
    }
}
