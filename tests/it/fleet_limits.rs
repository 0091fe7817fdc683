//! A fleet on one Redis: what its nodes admit together is what one would.

use crate::support::client::{Response, ask_chat};
use crate::support::node::Node;
use crate::support::redis::{self, Kind};
use crate::support::wall::{Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

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
