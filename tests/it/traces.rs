//! Traces, span by span, as a collector gets them (T30, the traces part), and what a collector that
//! fails means for everybody else.

mod failing;
mod golden;
mod propagation;

use crate::support::client::{chat, post};
use crate::support::collector::Collector;
use crate::support::node::Node;
use crate::support::wall::Wall;

const CHAT: &str = "/v1/chat/completions";

/// A plain answer with usage.
const ANSWER: &str = r#"{"id":"x","object":"chat.completion","model":"up-1-2026","choices":[{"index":0,"message":{"role":"assistant","content":"hi there"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":5}}}"#;

/// Two targets, each at a wall of its own, in two tiers; a key for a tenant where `keys` says so.
fn document(first: &Wall, second: &Wall, more: &str) -> String {
    format!(
        "
providers:
  one: {{ protocol: openai, base_url: '{}', api_key: sk-provider-canary }}
  two: {{ protocol: openai, base_url: '{}', api_key: sk-provider-canary, trace_context: true }}
targets:
  main: {{ provider: one, model: up-1 }}
  spare: {{ provider: two }}
pools:
  fast: {{ tiers: [[main], [spare]] }}
  only: {{ tiers: [[main]], retry: {{ attempts: 1 }} }}
  own: {{ tiers: [[spare]] }}
{more}",
        first.base_url("/v1"),
        second.base_url("/v1"),
    )
}

/// A node that sends its spans to the collector soon, with these variables too.
fn node(document: &str, collector: &Collector, env: &[(&str, &str)]) -> Node {
    let endpoint = collector.endpoint();
    let mut all =
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    all.extend(env);
    Node::with(document, &all)
}

/// Ends the node, which sends what it still has.
fn end(mut node: Node) {
    node.drain();
    node.join();
}

fn request(model: &str, stream: bool, headers: &[(&str, &str)]) -> Vec<u8> {
    post(CHAT, headers, &chat(model, stream))
}
