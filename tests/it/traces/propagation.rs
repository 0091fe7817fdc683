//! The trace that a request comes with, and the one that a provider is told.

use super::{ANSWER, document, end, node, request};
use crate::support::client::ask;
use crate::support::collector::Collector;
use crate::support::node::Node;
use crate::support::wall::{Attempt, Script, Wall};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// What a provider that may be told was told, and one that may not.
struct Told {
    own: Option<String>,
    state: Option<String>,
    vendor: Option<String>,
}

/// Asks both providers with these headers.
async fn told(node: &Node, walls: [&Wall; 2], headers: &[(&str, &str)]) -> Told {
    let [own, vendor] = walls;
    let before = [own.count(), vendor.count()];
    for pool in ["own", "only"] {
        assert_eq!(ask(node.data, &request(pool, false, headers)).await.status, 200);
    }
    let header = |attempt: &Attempt, name| attempt.header(name).map(str::to_owned);
    let (own, vendor) = (own.attempt(before[0]).await, vendor.attempt(before[1]).await);
    Told {
        own: header(&own, "traceparent"),
        state: header(&own, "tracestate"),
        vendor: header(&vendor, "traceparent").or(header(&vendor, "tracestate")),
    }
}

fn walls() -> (Wall, Wall) {
    (Wall::always(Script::json(200, ANSWER)), Wall::always(Script::json(200, ANSWER)))
}

// T30
#[tokio::test]
async fn a_callers_trace_goes_on() {
    let collector = Collector::start();
    let (vendor, own) = walls();
    let node = node(&document(&vendor, &own, ""), &collector, &[]);
    let parent = parent("01");
    let headers = [("traceparent", &*parent), ("tracestate", "a=1,b=2")];
    let told = told(&node, [&own, &vendor], &headers).await;
    end(node);
    let spans = collector.spans();
    let [root, attempt, ..] = &spans[..] else { unreachable!("there are four: {spans:?}") };
    assert!(spans.len() == 4 && spans.iter().all(|span| span.trace == TRACE));
    assert!(spans.iter().all(|span| span.state == "a=1,b=2"));
    assert_eq!(root.parent, SPAN);
    assert_ne!(root.get("flotilla.request_id"), TRACE);
    assert_eq!(attempt.parent, root.id);
    // The provider's work is below the attempt.
    assert_eq!(told.own, Some(format!("00-{TRACE}-{}-01", attempt.id)));
    assert_eq!(told.state.as_deref(), Some("a=1,b=2"));
    assert_eq!(told.vendor, None);
}

// T30
#[tokio::test]
async fn a_caller_that_does_not_sample_is_followed() {
    let collector = Collector::start();
    let (vendor, own) = walls();
    let node = node(&document(&vendor, &own, ""), &collector, &[]);
    let parent = parent("00");
    let told = told(&node, [&own, &vendor], &[("traceparent", &parent)]).await;
    end(node);
    assert_eq!(collector.spans().len(), 0);
    assert_eq!((told.own, told.vendor), (Some(parent), None));
}

// T30
#[tokio::test]
async fn a_request_that_is_not_sampled_has_no_span_and_its_provider_begins_none() {
    let collector = Collector::start();
    let (vendor, own) = walls();
    let env = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let node = node(&document(&vendor, &own, ""), &collector, &env);
    let rootless = told(&node, [&own, &vendor], &[]).await;
    let parent = parent("01");
    let told = told(&node, [&own, &vendor], &[("traceparent", &parent)]).await;
    end(node);
    assert_eq!(collector.spans().len(), 0);
    let passed = rootless.own.expect("one is made");
    assert!(passed.len() == 55 && passed.ends_with("-00"), "{passed}");
    // We are not part of it, and nobody behind us is.
    assert_eq!(told.own, Some(parent.replace("-01", "-00")));
    assert_eq!(rootless.vendor.or(told.vendor), None);
}

#[tokio::test]
async fn a_node_without_traces_passes_on_what_it_got() {
    let (vendor, own) = walls();
    let node = Node::serving(&document(&vendor, &own, ""));
    let parent = parent("01");
    let headers = [("traceparent", &*parent), ("tracestate", "a=1")];
    let given = told(&node, [&own, &vendor], &headers).await;
    assert_eq!((given.own, given.state), (Some(parent), Some("a=1".to_owned())));
    let none = told(&node, [&own, &vendor], &[]).await;
    assert_eq!((none.own, none.state), (None, None));
    let broken = told(&node, [&own, &vendor], &[("traceparent", "00-x"), ("tracestate", "a=1")]);
    let broken = broken.await;
    assert_eq!((broken.own, broken.state), (None, None));
    assert_eq!(given.vendor.or(none.vendor).or(broken.vendor), None);
    assert!(!node.metrics().contains("flotilla_trace_spans"));
}

// T30: always_on samples whatever the caller says.
#[tokio::test]
async fn a_sampler_that_is_not_parent_based_decides_for_itself() {
    let collector = Collector::start();
    let (vendor, own) = walls();
    let env = [("OTEL_TRACES_SAMPLER", "always_on")];
    let node = node(&document(&vendor, &own, ""), &collector, &env);
    let parent = parent("00");
    let told = told(&node, [&own, &vendor], &[("traceparent", &parent)]).await;
    end(node);
    let spans = collector.spans();
    assert_eq!((spans.len(), spans[0].trace.as_str(), spans[0].parent.as_str()), (4, TRACE, SPAN));
    assert!(told.own.expect("told").ends_with("-01"));
}
