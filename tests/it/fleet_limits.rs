//! A fleet on one Redis: what its nodes admit together is what one would.

use std::time::{Duration, Instant};

use crate::support::client::{Response, ask, ask_chat, get};
use crate::support::node::Node;
use crate::support::redis::{self, Kind, Server};
use crate::support::wall::{Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

const TOKEN: (&str, &str) = ("FLOTILLA_ADMIN_TOKEN", "of-the-operator");

/// Nodes that share a Redis and a document whose limits these are.
fn fleet(nodes: usize, wall: &Wall, limits: &str) -> Vec<Node> {
    let (server, prefix) = (redis::shared(Kind::Redis7), redis::prefix());
    let url = server.url();
    let document = format!(
        "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v }} }}
pools: {{ p: {{ tiers: [[t]] }} }}
limits: [{limits}]
",
        wall.base_url("/v1")
    );
    let env = [
        ("FLOTILLA_REDIS_URL", url.as_str()),
        ("FLOTILLA_REDIS_PREFIX", prefix.as_str()),
        ("FLOTILLA_REDIS_DEADLINE", "2s"),
        ("FLOTILLA_WORKERS", "1"),
    ];
    (0..nodes).map(|_| Node::with(&document, &env)).collect()
}

async fn ask_all(nodes: &[Node], count: usize) -> Vec<Response> {
    let asked = (0..count).map(|number| ask_chat(nodes[number % nodes.len()].data, "p", false));
    futures_util::future::join_all(asked).await
}

fn admitted(responses: &[Response]) -> usize {
    responses.iter().filter(|response| response.status == 200).count()
}

#[tokio::test]
async fn four_nodes_admit_what_one_would() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let limit = "{ name: l, scope: tenant, metric: requests, limit: 30, window: 1h, degraded: fail_closed }";
    let nodes = fleet(4, &wall, limit);
    let responses = ask_all(&nodes, 120).await;
    let refused = responses.iter().find(|response| response.status != 200).expect("most of them");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert_eq!((admitted(&responses), wall.count()), (30, 30));
}

// T8, through the whole node: a Redis that hangs is not noticed by clients, and hears of everything.
#[tokio::test]
async fn clients_do_not_notice_that_redis_hangs() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let server = Server::start();
    let url = server.url();
    let document = format!(
        "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v }} }}
pools: {{ p: {{ tiers: [[t]] }} }}
limits:
  - {{ name: r, scope: tenant, metric: requests, limit: 1000, window: 1h }}
  - {{ name: t, scope: tenant, metric: tokens, limit: 1000000, window: 1h }}
  - {{ name: c, scope: key, metric: concurrency, limit: 50 }}
  - {{ name: g, scope: target, metric: concurrency, limit: 100 }}
",
        wall.base_url("/v1")
    );
    let env = [("FLOTILLA_REDIS_URL", url.as_str()), ("FLOTILLA_WORKERS", "1"), TOKEN];
    let nodes = [Node::with(&document, &env), Node::with(&document, &env)];
    let responses = ask_all(&nodes, 40).await;
    assert_eq!(admitted(&responses), 40);
    server.pause();
    let responses = ask_all(&nodes, 40).await;
    assert_eq!(admitted(&responses), 40, "{:?}", responses.iter().find(|one| one.status != 200));
    for number in 0..40 {
        let start = Instant::now();
        let response = ask_chat(nodes[number % 2].data, "p", false).await;
        assert_eq!(response.status, 200);
        // The breaker is open; the upstream's part and a slow machine are in it.
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
    let ready = ask(nodes[0].admin, &get("/readyz", &[])).await;
    assert_eq!(ready.status, 200);
    assert!(nodes[0].metric("flotilla_limit_degraded_admissions_total") >= 20.0);
    assert!(nodes[0].metric("flotilla_degraded_seconds_total") > 0.0);
    server.resume();
    let bearer = [("authorization", "Bearer of-the-operator")];
    let start = Instant::now();
    loop {
        let standing = ask(nodes[1].admin, &get("/admin/v1/limits", &bearer)).await.json();
        let used = |name: &str| {
            let limits = standing["limits"].as_array().into_iter().flatten();
            limits
                .into_iter()
                .find(|limit| limit["name"] == name)
                .map(|limit| limit["used"].clone())
        };
        if used("r") == Some(120.into()) && used("t") == Some((120 * 15).into()) {
            assert_eq!(used("c"), Some(0.into()));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{standing}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
