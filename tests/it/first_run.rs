//! The first run: no document, no key, one command, and an answer. And the ends of a process that
//! cannot start, each with its exit code.

use std::net::TcpListener;

use flotilla::sim::FAULTS;
use futures_util::future::join_all;

use crate::support::client::{ask, ask_chat, get, post};
use crate::support::node::Node;
use crate::support::process::Process;

/// What stands between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).expect("the start is there");
    rest.split_once(end).expect("the end is there").0
}

#[tokio::test]
async fn the_curl_of_the_banner_is_answered() {
    let node = Process::start("", &[("FLOTILLA_LOG_FORMAT", "text")]);
    node.says("Hello").await;
    let banner = node.stderr();
    let url = between(&banner, "curl http://", " ");
    let (address, path) = url.split_once('/').expect("a path");
    let address: std::net::SocketAddr = address.parse().expect("an address");
    assert_eq!(address, node.data);
    let (name, value) = between(&banner, "-H '", "'").split_once(": ").expect("a header");
    let body = between(&banner, "-d '", "'");
    let request = post(&format!("/{path}"), &[(name, value)], body.as_bytes());
    let response = ask(address, &request).await;
    assert_eq!((response.status, response.complete), (200, true), "{}", response.text());
    let answer = response.json();
    assert_eq!((&answer["object"], &answer["model"]), (&"chat.completion".into(), &"sim".into()));
    assert!(
        answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| !text.is_empty())
    );
    let admin = between(&banner, "health and metrics: http://", ")");
    assert_eq!(admin.parse(), Ok(node.admin));
    assert_eq!(ask(node.admin, &get("/healthz", &[])).await.status, 200);
}

#[tokio::test]
async fn all_that_can_be_asked_for_is_listed() {
    let node = Node::first_run();
    let listed = ask(node.data, &get("/v1/models", &[])).await.json();
    let listed = listed["data"].as_array().expect("a list").iter();
    let listed: Vec<_> = listed.map(|model| model["id"].as_str().expect("a name")).collect();
    let faults = FAULTS.iter().map(|fault| fault.model);
    let mut expected: Vec<_> = faults.chain(["sim"]).collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

/// What a client sees of an answer: the status, and the error's code, or how the answer ended.
async fn outcome(node: &Node, model: &str, stream: bool) -> (u16, String) {
    let response = ask_chat(node.data, model, stream).await;
    let is_error = response.status != 200;
    assert!(response.complete || !is_error, "{model}: an error is whole");
    let end = if is_error {
        response.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    } else if !stream {
        assert!(response.complete, "{model}");
        let answer = response.json();
        answer["choices"][0]["finish_reason"].as_str().unwrap_or_default().to_owned()
    } else {
        let text = response.text();
        let done = text.ends_with("data: [DONE]\n\n");
        assert_eq!(done, response.complete, "{model}: {text}");
        match (done, text.contains("stream_interrupted"), text.contains("\"error\"")) {
            (true, false, false) => "done".to_owned(),
            (false, true, _) => "interrupted".to_owned(),
            (false, false, true) => "the provider's error".to_owned(),
            other => format!("{other:?}"),
        }
    };
    (response.status, end)
}

/// Model, plain outcome, outcome of a stream.
type Row = (&'static str, (u16, &'static str), (u16, &'static str));

async fn check(node: &Node, rows: &[Row]) {
    let checks = rows.iter().map(async |&(model, plain, stream)| {
        let (status, end) = outcome(node, model, false).await;
        assert_eq!((status, end.as_str()), plain, "{model}");
        let (status, end) = outcome(node, model, true).await;
        assert_eq!((status, end.as_str()), stream, "{model}, as a stream");
    });
    join_all(checks).await;
}

const ROWS: [Row; 14] = [
    ("sim", (200, "stop"), (200, "done")),
    ("sim-anything", (200, "stop"), (200, "done")),
    ("sim-429", (429, "rate_limit_exceeded"), (429, "rate_limit_exceeded")),
    ("sim-500", (500, "server_error"), (500, "server_error")),
    ("sim-503", (503, "overloaded"), (503, "overloaded")),
    ("sim-401", (502, "upstream_error"), (502, "upstream_error")),
    ("sim-context-length", (400, "context_length_exceeded"), (400, "context_length_exceeded")),
    ("sim-reset", (502, "upstream_error"), (502, "upstream_error")),
    ("sim-cut", (502, "upstream_error"), (200, "interrupted")),
    ("sim-no-done", (200, "stop"), (200, "done")),
    ("sim-cut-clean", (200, "stop"), (200, "interrupted")),
    ("sim-error-event", (500, "server_error"), (200, "the provider's error")),
    ("sim-empty", (200, "stop"), (200, "done")),
    ("sim-content-filter", (200, "content_filter"), (200, "done")),
];

/// Faults that are known by their silence: with clocks of their own.
const SLOW: [Row; 3] = [
    ("sim-silent", (504, "upstream_timeout"), (504, "upstream_timeout")),
    ("sim-slow-first-token", (504, "upstream_timeout"), (504, "upstream_timeout")),
    ("sim-stall", (504, "upstream_timeout"), (200, "interrupted")),
];

#[tokio::test]
async fn every_simulated_fault_looks_through_the_node_as_it_should() {
    check(&Node::first_run(), &ROWS).await;
}

#[tokio::test]
async fn simulated_silence_ends_with_the_clocks_of_the_pool() {
    let sim = Process::run(&["sim"], "", &[]);
    sim.says("simulated providers on").await;
    let stderr = sim.stderr();
    let url = between(&stderr, "simulated providers on ", " ");
    let node = Node::serving(&format!(
        "providers: {{ sim: {{ protocol: openai, base_url: \"{url}\" }} }}
targets: {{ sim: {{ provider: sim }} }}
pools: {{ sim: {{ tiers: [[sim]], timeouts: {{ first_token: 300ms, answer: 300ms, idle: 300ms }} }} }}
routes: [{{ name: sim, match: {{ model: \"sim*\" }}, pool: sim }}]
"
    ));
    check(&node, &SLOW).await;
}

#[test]
fn every_simulated_fault_has_its_row() {
    let known = ROWS.iter().chain(&SLOW).map(|row| row.0);
    let known: Vec<_> = known.chain(["sim-malformed"]).collect();
    let missing: Vec<_> =
        FAULTS.iter().map(|fault| fault.model).filter(|model| !known.contains(model)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn what_is_malformed_is_never_a_good_end() {
    let node = Node::first_run();
    let response = ask_chat(node.data, "sim-malformed", true).await;
    assert_eq!((response.status, response.complete), (200, false));
    assert!(response.text().contains("stream_interrupted"), "{}", response.text());
    assert!(!response.text().contains("[DONE]"));
    let response = ask_chat(node.data, "sim-malformed", false).await;
    assert_eq!((response.status, response.code()), (502, "upstream_error".into()));
}

#[tokio::test]
async fn a_node_whose_providers_all_lack_their_variable_is_not_ready() {
    let document = "providers: { p: { protocol: openai, api_key: \"${NOT_SET_ANYWHERE}\" } }
targets: { t: { provider: p } }
pools: { it: { tiers: [[t]] } }
";
    let node = Node::serving(document);
    for address in [node.data, node.admin] {
        let response = ask(address, &get("/readyz", &[])).await;
        assert_eq!(response.status, 503);
        assert!(response.text().contains("no provider can be used"), "{}", response.text());
    }
    let response = ask_chat(node.data, "it", false).await;
    assert_eq!((response.status, response.code()), (503, "no_target".into()));
}

#[tokio::test]
async fn the_log_tells_of_each_failed_attempt_and_no_key_stands_twice() {
    let node = Process::start("", &[]);
    assert_eq!(ask_chat(node.data, "sim-503", false).await.status, 503);
    node.says("\"request\"").await;
    let log = node.stderr();
    let of = |message: &str| {
        let message = format!("\"message\":\"{message}\"");
        log.lines().filter(|line| line.contains(&message)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (attempts, requests) = (of("attempt failed"), of("request"));
    assert_eq!((attempts.len(), requests.len()), (3, 1), "{log}");
    for line in attempts.iter().chain(&requests) {
        assert_eq!(line.matches("\"target\":\"sim\"").count(), 1, "{line}");
        assert_eq!(line.matches("\"target\":").count(), 1, "{line}");
        assert_eq!(line.matches("\"request_id\":").count(), 1, "{line}");
    }
}

/// A document, settings, and what is said about what is wrong with them.
type BadStart = (&'static str, Vec<(&'static str, &'static str)>, Vec<&'static str>);

fn bad_starts() -> Vec<BadStart> {
    let good = "providers: { p: { protocol: openai, base_url: \"http://127.0.0.1:1\" } }
targets: { t: { provider: p } }
pools: { it: { tiers: [[t]] } }
";
    vec![
        ("", vec![("FLOTILLA_LAME_DUCK", "5")], vec!["FLOTILLA_LAME_DUCK", "no unit"]),
        (
            "",
            vec![("FLOTILLA_BODY_LIMIT", "many"), ("FLOTILLA_LOG", "what is=this")],
            vec!["FLOTILLA_BODY_LIMIT", "FLOTILLA_LOG"],
        ),
        ("", vec![("FLOTILLA_CONFIG", "/nowhere/fleet.yaml")], vec!["/nowhere/fleet.yaml"]),
        (
            "",
            vec![("FLOTILLA_REDIS_URL", "redis+sentinel://127.0.0.1/main")],
            vec!["FLOTILLA_REDIS_URL", "not served"],
        ),
        ("", vec![("FLOTILLA_SETTINGS", "/nowhere/settings.toml")], vec!["/nowhere/settings.toml"]),
        ("pools: [", vec![], vec!["fleet.yaml:2:1: not YAML"]),
        ("pool: {}", vec![], vec!["fleet.yaml:1:1", "did you mean `pools`"]),
        (good, vec![("FLOTILLA_ADMIN_LISTEN", "0.0.0.0:0")], vec!["FLOTILLA_ADMIN_TOKEN"]),
        (good, vec![("FLOTILLA_LISTEN", "0.0.0.0:0")], vec!["FLOTILLA_LISTEN", "keys"]),
    ]
}

#[tokio::test]
async fn what_is_set_wrongly_is_said_before_any_port_is_bound() {
    // Whoever tried to bind this port would end with 69.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("bound");
    for (document, settings, said) in bad_starts() {
        let mut env = vec![
            ("FLOTILLA_LISTEN", taken.1.as_str()),
            ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0"),
            ("FLOTILLA_SIM_LISTEN", taken.1.as_str()),
        ];
        env.extend(&settings);
        let mut process = Process::run(&["serve"], document, &env);
        let code = process.exit().await;
        let stderr = process.stderr();
        assert_eq!(code, Some(64), "{settings:?}: {stderr}");
        for part in said {
            assert!(stderr.contains(part), "{part} is missing in {stderr}");
        }
        assert!(stderr.lines().all(|line| line.starts_with("flotilla: ")), "{stderr}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for setting in ["FLOTILLA_LISTEN", "FLOTILLA_ADMIN_LISTEN", "FLOTILLA_SIM_LISTEN"] {
        let mut process = Process::run(&["serve"], "", &[(setting, &address)]);
        assert_eq!(process.exit().await, Some(69), "{}", process.stderr());
        let stderr = process.stderr();
        for part in [setting, &address] {
            assert!(stderr.contains(part), "{part} is missing in {stderr}");
        }
    }
    let mut process = Process::run(&["sim"], "", &[("FLOTILLA_SIM_LISTEN", &address)]);
    assert_eq!(process.exit().await, Some(69));
    let mut process = Process::run(&["serv"], "", &[]);
    assert_eq!(process.exit().await, Some(64));
    assert!(process.stderr().contains("serve"), "{}", process.stderr());
}

#[tokio::test]
async fn the_usual_variable_makes_a_pool_of_its_provider() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let env = [
        ("OPENAI_API_KEY", "sk-canary"),
        ("FLOTILLA_LOG_FORMAT", "text"),
        // The simulator is not needed, and would not start.
        ("FLOTILLA_SIM_LISTEN", &address),
    ];
    let node = Process::start("", &env);
    let models = ask(node.data, &get("/v1/models", &[])).await.json();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1), "{models}");
    assert_eq!(models["data"][0]["id"], "openai");
    let health = ask(node.admin, &get("/healthz", &[])).await.json();
    assert_eq!(health["providers"]["openai"]["enabled"], true, "{health}");
    assert!(!node.stderr().contains("simulated providers"), "{}", node.stderr());
    assert!(!node.stderr().contains("canary"));
}
