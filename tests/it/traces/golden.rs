//! The spans of every way in which a request can go.

use super::{ANSWER, CHAT, document, end, node, request};
use crate::support::client::{Client, Response, ask, chat, post};
use crate::support::collector::{Collector, Span};
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

/// Serves one request and returns its answer and its spans, the request's own first.
async fn traced(first: Script, second: Script, more: &str, bytes: &[u8]) -> (Response, Vec<Span>) {
    let collector = Collector::start();
    let (first, second) = (Wall::always(first), Wall::always(second));
    let node = node(&document(&first, &second, more), &collector, &[]);
    let response = ask(node.data, bytes).await;
    end(node);
    let spans = collector.spans();
    assert_family(&spans, response.header("x-flotilla-request-id").expect("an id"));
    (response, spans)
}

/// One trace whose id is the request's, one root, and all attempts right below it and within it.
fn assert_family(spans: &[Span], request_id: &str) {
    let root = spans.first().expect("a span");
    assert_eq!((root.parent.as_str(), root.trace.as_str()), ("", request_id));
    assert_eq!(root.get("flotilla.request_id"), request_id);
    for attempt in &spans[1..] {
        assert_eq!((&attempt.trace, &attempt.parent), (&root.trace, &root.id));
        assert_ne!(attempt.id, root.id);
        assert!(attempt.started >= root.started && attempt.ended <= root.ended, "{spans:?}");
    }
    assert!(spans.iter().all(|span| span.ended >= span.started && span.started > 0));
}

fn golden(spans: &[Span]) -> String {
    spans.iter().map(Span::golden).collect::<Vec<_>>().join("\n")
}

fn unused() -> Script {
    Script::json(500, "{}")
}

// T30
#[tokio::test]
async fn a_plain_request_has_two_spans() {
    let (response, spans) =
        traced(Script::json(200, ANSWER), unused(), "", &request("fast", false, &[])).await;
    assert_eq!(response.status, 200);
    assert_eq!(
        golden(&spans),
        "\
POST /v1/chat/completions (server)
  flotilla.attempts=1
  flotilla.outcome=ok
  flotilla.pool=fast
  flotilla.request_id=*
  flotilla.target=main
  flotilla.tenant=default
  gen_ai.operation.name=chat
  gen_ai.request.model=fast
  gen_ai.usage.cache_read.input_tokens=4
  gen_ai.usage.input_tokens=9
  gen_ai.usage.output_tokens=12
  gen_ai.usage.reasoning.output_tokens=5
  http.request.method=POST
  http.response.status_code=200
  http.route=/v1/chat/completions
chat up-1 (client)
  flotilla.attempt=1
  flotilla.outcome=ok
  flotilla.provider=one
  flotilla.target=main
  gen_ai.operation.name=chat
  gen_ai.provider.name=openai
  gen_ai.request.model=up-1
  gen_ai.usage.cache_read.input_tokens=4
  gen_ai.usage.input_tokens=9
  gen_ai.usage.output_tokens=12
  gen_ai.usage.reasoning.output_tokens=5
  http.response.status_code=200
  server.address=127.0.0.1
  server.port=*"
    );
    let resource = &spans[0].resource;
    assert_eq!(resource["service.name"], "flotilla");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!resource["service.instance.id"].is_empty());
}

// T30
#[tokio::test]
async fn a_stream_has_its_usage_and_its_first_content() {
    let stream = Script::sse([
        r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
    ]);
    let (response, spans) = traced(stream, unused(), "", &request("only", true, &[])).await;
    assert!(response.complete && response.text().contains("[DONE]"));
    assert_eq!(
        golden(&spans),
        "\
POST /v1/chat/completions (server)
  flotilla.attempts=1
  flotilla.outcome=ok
  flotilla.pool=only
  flotilla.request_id=*
  flotilla.target=main
  flotilla.tenant=default
  gen_ai.operation.name=chat
  gen_ai.request.model=only
  gen_ai.usage.input_tokens=3
  gen_ai.usage.output_tokens=1
  http.request.method=POST
  http.response.status_code=200
  http.route=/v1/chat/completions
chat up-1 (client)
  flotilla.attempt=1
  flotilla.outcome=ok
  flotilla.provider=one
  flotilla.target=main
  gen_ai.operation.name=chat
  gen_ai.provider.name=openai
  gen_ai.request.model=up-1
  gen_ai.response.time_to_first_chunk=*
  gen_ai.usage.input_tokens=3
  gen_ai.usage.output_tokens=1
  http.response.status_code=200
  server.address=127.0.0.1
  server.port=*"
    );
}

// T30: no abort without its spans.
#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_its_spans() {
    let collector = Collector::start();
    let gate = Gate::new();
    let first = Wall::always(
        Script::sse_head()
            .event(r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#)
            .wait(&gate),
    );
    let second = Wall::always(unused());
    let node = node(&document(&first, &second, ""), &collector, &[]);
    let mut client = Client::connect(node.data).await;
    client.send(&request("only", true, &[])).await;
    let head = client.head().await;
    assert!(client.chunk().await.expect("a piece").is_some());
    client.reset();
    let spans = collector.await_spans(2).await;
    assert_family(&spans, head.header("x-flotilla-request-id").expect("an id"));
    let [root, attempt] = &spans[..] else { unreachable!("there are two: {spans:?}") };
    for span in [root, attempt] {
        assert_eq!(span.get("flotilla.outcome"), "client_gone");
        assert_eq!(span.get("error.type"), "client_gone");
        assert_eq!(span.get("flotilla.usage.estimated"), "true");
        // It was the client's wish.
        assert_eq!(span.error, None);
    }
    end(node);
    assert_eq!(collector.spans().len(), 2);
}

// T30
#[tokio::test]
async fn a_client_that_leaves_before_an_answer_ends_its_spans() {
    let collector = Collector::start();
    let first = Wall::always(Script::new().stall());
    let second = Wall::always(unused());
    let node = node(&document(&first, &second, ""), &collector, &[]);
    let mut client = Client::connect(node.data).await;
    client.send(&request("only", false, &[])).await;
    first.attempt(0).await;
    client.reset();
    let spans = collector.await_spans(2).await;
    let outcomes: Vec<_> = spans.iter().map(|span| span.get("flotilla.outcome")).collect();
    assert_eq!(outcomes, ["client_gone", "client_gone"]);
    // No head was given.
    assert_eq!(spans[0].get("http.response.status_code"), "");
}

// T30: the provider's spans are children of the request's, also of the second target.
#[tokio::test]
async fn a_fallback_has_a_span_for_each_attempt() {
    let (response, spans) = traced(
        Script::json(503, r#"{"error":{"message":"busy"}}"#),
        Script::json(200, ANSWER),
        "",
        &request("fast", false, &[]),
    )
    .await;
    assert_eq!((response.status, response.header("x-flotilla-attempts")), (200, Some("2")));
    assert_eq!(
        golden(&spans),
        "\
POST /v1/chat/completions (server)
  flotilla.attempts=2
  flotilla.outcome=ok
  flotilla.pool=fast
  flotilla.request_id=*
  flotilla.target=spare
  flotilla.tenant=default
  gen_ai.operation.name=chat
  gen_ai.request.model=fast
  gen_ai.usage.cache_read.input_tokens=4
  gen_ai.usage.input_tokens=9
  gen_ai.usage.output_tokens=12
  gen_ai.usage.reasoning.output_tokens=5
  http.request.method=POST
  http.response.status_code=200
  http.route=/v1/chat/completions
chat up-1 (client) ERROR status_5xx
  error.type=status_5xx
  flotilla.attempt=1
  flotilla.outcome=status_5xx
  flotilla.provider=one
  flotilla.target=main
  gen_ai.operation.name=chat
  gen_ai.provider.name=openai
  gen_ai.request.model=up-1
  gen_ai.usage.input_tokens=0
  gen_ai.usage.output_tokens=0
  http.response.status_code=503
  server.address=127.0.0.1
  server.port=*
chat (client)
  flotilla.attempt=2
  flotilla.outcome=ok
  flotilla.provider=two
  flotilla.target=spare
  gen_ai.operation.name=chat
  gen_ai.provider.name=openai
  gen_ai.request.model=fast
  gen_ai.usage.cache_read.input_tokens=4
  gen_ai.usage.input_tokens=9
  gen_ai.usage.output_tokens=12
  gen_ai.usage.reasoning.output_tokens=5
  http.response.status_code=200
  server.address=127.0.0.1
  server.port=*"
    );
}

// T30
#[tokio::test]
async fn a_providers_error_is_the_attempts_and_a_bad_request_no_fault_of_ours() {
    let bad = Script::json(400, r#"{"error":{"message":"no such thing"}}"#);
    let (response, spans) = traced(bad, unused(), "", &request("only", false, &[])).await;
    assert_eq!(response.status, 400);
    let [root, attempt] = &spans[..] else { unreachable!("there are two: {spans:?}") };
    assert_eq!((root.get("error.type"), root.error.as_deref()), ("provider_error", None));
    assert_eq!(root.get("http.response.status_code"), "400");
    assert_eq!(
        (attempt.get("error.type"), attempt.error.as_deref()),
        ("status_4xx", Some("status_4xx"))
    );
    // A provider that cannot be reached has no status.
    let (response, spans) =
        traced(Script::new().reset(), unused(), "", &request("only", false, &[])).await;
    assert_eq!(response.status, 502);
    let [root, attempt] = &spans[..] else { unreachable!("there are two: {spans:?}") };
    assert_eq!(root.error.as_deref(), Some("upstream_error"));
    assert_eq!(root.get("http.response.status_code"), "502");
    assert_eq!(attempt.get("error.type"), "broken");
    assert_eq!(attempt.get("http.response.status_code"), "");
}

// T30
#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_although_its_status_was_200() {
    let broken =
        Script::sse_head().event(r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#).reset();
    let (response, spans) = traced(broken, unused(), "", &request("only", true, &[])).await;
    assert!(!response.complete);
    let [root, attempt] = &spans[..] else { unreachable!("there are two: {spans:?}") };
    assert_eq!(root.get("http.response.status_code"), "200");
    assert_eq!(root.error.as_deref(), Some("stream_interrupted"));
    assert_eq!(attempt.error.as_deref(), Some("interrupted"));
}

// T30
#[tokio::test]
async fn errors_of_our_own_have_a_span_and_no_attempt() {
    let keys = "tenants: { acme: {} }
keys: [{ name: acme-prod, tenant: acme, key: sk-right-canary, models: [fast] }]";
    let wrong = [("authorization", "Bearer sk-wrong-canary")];
    let (response, spans) = traced(unused(), unused(), keys, &request("fast", false, &wrong)).await;
    assert_eq!(response.status, 401);
    assert_eq!(
        golden(&spans),
        "\
POST /v1/chat/completions (server)
  error.type=invalid_key
  flotilla.attempts=0
  flotilla.outcome=invalid_key
  flotilla.request_id=*
  gen_ai.operation.name=chat
  http.request.method=POST
  http.response.status_code=401
  http.route=/v1/chat/completions"
    );
    let right = [("authorization", "Bearer sk-right-canary")];
    let (response, spans) =
        traced(unused(), unused(), keys, &request("no-such-model", false, &right)).await;
    assert_eq!(response.status, 404);
    assert_eq!(
        golden(&spans),
        "\
POST /v1/chat/completions (server)
  error.type=model_not_found
  flotilla.attempts=0
  flotilla.outcome=model_not_found
  flotilla.request_id=*
  flotilla.tenant=acme
  gen_ai.operation.name=chat
  gen_ai.request.model=no-such-model
  http.request.method=POST
  http.response.status_code=404
  http.route=/v1/chat/completions"
    );
}

// T30: names of spans are few, whatever clients ask for.
#[tokio::test]
async fn every_endpoint_has_a_name_of_its_own_and_models_make_none() {
    let collector = Collector::start();
    let (first, second) = (Wall::always(unused()), Wall::always(Script::json(200, "{}")));
    let more = "routes: [{ name: all, match: { model: '*' }, pool: own }]";
    let node = node(&document(&first, &second, more), &collector, &[]);
    let body = |model: &str| format!(r#"{{"model":"{model}","input":"x","prompt":"x"}}"#);
    let paths = ["completions", "embeddings", "moderations", "images/generations", "audio/speech"];
    for path in paths {
        let model = format!("{path}-{}", "m".repeat(200));
        let bytes = post(&format!("/v1/{path}"), &[], body(&model).as_bytes());
        assert_eq!(ask(node.data, &bytes).await.status, 200, "{path}");
    }
    end(node);
    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "POST /v1/completions",
            "text_completion",
            "POST /v1/embeddings",
            "embeddings",
            "POST /v1/moderations",
            "moderation",
            "POST /v1/images/generations",
            "image_generation",
            "POST /v1/audio/speech",
            "speech",
        ]
    );
    assert!(spans.iter().all(|span| span.get("gen_ai.request.model").len() == 128));
}

// T31d, the traces part.
#[tokio::test]
async fn no_prompt_answer_key_or_header_is_in_a_span() {
    let collector = Collector::start();
    let answer = ANSWER.replace("hi there", "answer-canary").replace("\"x\"", "\"id-canary\"");
    let first = Wall::sequence([
        Script::json(200, answer),
        Script::json(401, r#"{"error":{"message":"Incorrect key: sk-provider-canary"}}"#),
        Script::json(500, r#"{"error":{"message":"body-canary"}}"#),
    ]);
    let second = Wall::always(Script::json(500, r#"{"error":{"message":"body-canary"}}"#));
    let keys = "tenants: { acme: {} }
keys: [{ name: acme-prod, tenant: acme, key: sk-right-canary }]";
    let header = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-canary")];
    let node = node(&document(&first, &second, keys), &collector, &header);
    let body = String::from_utf8(chat("fast", false)).expect("text").replace("hi", "prompt-canary");
    let headers = [
        ("authorization", "Bearer sk-right-canary"),
        ("cookie", "cookie-canary"),
        ("x-api-key", "sk-right-canary"),
        ("user-agent", "agent-canary"),
        ("x-request-id", "client-canary"),
        ("baggage", "k=baggage-canary"),
        ("traceparent", "canary"),
        ("tracestate", "canary=canary"),
    ];
    for path in [CHAT.to_owned(), format!("{CHAT}?key=sk-query-canary"), CHAT.to_owned()] {
        ask(node.data, &post(&path, &headers, body.as_bytes())).await;
    }
    let wrong = [("authorization", "Bearer sk-wrong-canary")];
    ask(node.data, &post(CHAT, &wrong, body.as_bytes())).await;
    end(node);
    assert!(collector.spans().len() >= 8);
    eventually(DEADLINE, || collector.wall.count() > 0).await;
    for post in collector.wall.attempts() {
        let text = String::from_utf8_lossy(&post.body()).into_owned();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(post.header("authorization"), Some("Bearer collector-canary"));
        assert_eq!(post.header("content-type"), Some("application/x-protobuf"));
        assert_eq!((post.method.as_str(), post.path.as_str()), ("POST", "/v1/traces"));
    }
}
