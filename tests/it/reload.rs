//! T12 through a whole node: a changed document takes over for new requests, whole or not at all.
//! T30, the series part: whatever clients send, the metrics do not grow.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::{Client, ask_chat, chat, get, post};
use crate::support::eventually::eventually;
use crate::support::node::{Node, metric, scratch};
use crate::support::process::Process;
use crate::support::wall::{Gate, Script, Wall};

const CHAT: &str = "/v1/chat/completions";
/// A change is looked for once a second; the rest is for a machine with its hands full.
const SOON: Duration = Duration::from_secs(5);

fn document(wall: &Wall, target: &str) -> String {
    format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ {target}: {{ provider: p }} }}
pools: {{ it: {{ tiers: [[{target}]] }} }}
",
        wall.base_url("/v1")
    )
}

fn answering(text: &str) -> Wall {
    Wall::always(Script::json(200, format!(r#"{{"choices":[],"said":"{text}"}}"#)))
}

async fn said(node: &Node) -> String {
    let response = ask_chat(node.data, "it", false).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["said"].as_str().unwrap_or_default().to_owned()
}

async fn revision_becomes(node: &Node, revision: f64) {
    eventually(SOON, || node.metric("flotilla_config_revision") == revision).await;
}

// T12
#[tokio::test]
async fn a_changed_document_serves_new_requests_and_leaves_running_ones_alone() {
    let gate = Gate::new();
    let content = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let stream = Script::sse_head().event(content).wait(&gate).event(content).done();
    let (old, new) = (Wall::always(stream), answering("new"));
    let node = Node::serving(&document(&old, "a"));
    let mut running = Client::connect(node.data).await;
    running.send(&post(CHAT, &[], &chat("it", true))).await;
    let head = running.head().await;
    assert_eq!(head.header("x-flotilla-target"), Some("a"));
    running.until(b"\"x\"").await.expect("its first event");

    let changed = Instant::now();
    std::fs::write(&node.document, document(&new, "b")).expect("the document is written");
    revision_becomes(&node, 2.0).await;
    assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());
    assert_eq!(said(&node).await, "new");
    assert_eq!(node.metric("flotilla_config_reloads_total{outcome=\"ok\"}"), 1.0);

    gate.open();
    running.until(b"\"x\"").await.expect("its second event");
    running.until(b"[DONE]").await.expect("its end");
    running.until(b"\r\n0\r\n\r\n").await.expect("a clean end");
    assert_eq!((old.count(), new.count()), (1, 1));
}

// T12
#[tokio::test]
async fn a_document_that_is_wrong_or_gone_leaves_traffic_as_it_is() {
    let (old, new) = (answering("old"), answering("new"));
    let node = Node::serving(&document(&old, "a"));
    let invalid = "flotilla_config_reloads_total{outcome=\"invalid\"}";
    let wrong = [
        "pools: [".to_owned(),
        String::new(),
        document(&new, "b").replace("tiers", "tier"),
        document(&new, "b").replace("[[b]]", "[[c]]"),
    ];
    for (number, text) in (1_u8..).zip(wrong) {
        std::fs::write(&node.document, text).expect("the document is written");
        eventually(SOON, || node.metric(invalid) == f64::from(number)).await;
        assert_eq!(said(&node).await, "old");
    }
    std::fs::remove_file(&node.document).expect("the document is removed");
    eventually(SOON, || node.metric(invalid) == 5.0).await;
    assert_eq!(said(&node).await, "old");
    assert_eq!(node.metric("flotilla_config_revision"), 1.0);
    // And once it is good again, it is served.
    std::fs::write(&node.document, document(&new, "b")).expect("the document is written");
    revision_becomes(&node, 2.0).await;
    assert_eq!((said(&node).await, new.count()), ("new".into(), 1));
}

// T12: as Kubernetes changes a mounted document.
#[tokio::test]
async fn a_swapped_symlink_is_followed() {
    let (old, new) = (answering("old"), answering("new"));
    let folder = scratch("mount");
    let write = |version: &str, text: String| {
        let folder = folder.join(version);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("fleet.yaml"), text).expect("the document is written");
    };
    write("..1", document(&old, "a"));
    symlink("..1", folder.join("..data")).expect("a link");
    symlink(Path::new("..data").join("fleet.yaml"), folder.join("fleet.yaml")).expect("a link");
    let path = folder.join("fleet.yaml").display().to_string();
    let node = Node::with("", &[("FLOTILLA_CONFIG", &path)]);
    assert_eq!(said(&node).await, "old");
    write("..2", document(&new, "b"));
    symlink("..2", folder.join("..next")).expect("a link");
    std::fs::rename(folder.join("..next"), folder.join("..data")).expect("the link is swapped");
    revision_becomes(&node, 2.0).await;
    assert_eq!(said(&node).await, "new");
}

// T12: what is wrong is said with its place, once.
#[tokio::test]
async fn a_document_that_is_wrong_is_reported_with_its_place() {
    let wall = answering("old");
    let node = Process::start(&document(&wall, "a"), &[]);
    std::fs::write(&node.document, document(&wall, "a").replace("protocol", "protocoll"))
        .expect("the document is written");
    node.says("protocoll").await;
    // Two more looks at the same file.
    let seen = Instant::now();
    eventually(SOON, || seen.elapsed() > Duration::from_millis(2200)).await;
    let log = node.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("protocoll")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["\"level\":\"ERROR\"", "fleet.yaml:1:", "did you mean `protocol`", "not served"] {
        assert!(lines[0].contains(part), "{part} is missing in {}", lines[0]);
    }
    assert_eq!(metric(node.admin, "flotilla_config_revision"), 1.0);
    assert_eq!(ask_chat(node.data, "it", false).await.status, 200);
}

/// Random but the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn word(&mut self) -> String {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("w{:016x}", z ^ (z >> 31))
    }
}

/// One request of each kind, every name in it new, and the status that it gets.
fn strangers(dice: &mut Dice) -> Vec<(Vec<u8>, u16)> {
    let mut word = || dice.word();
    let good = [("authorization", "Bearer good")];
    let body = |model: &str, user: &str| {
        format!(r#"{{"model":"{model}","user":"{user}","messages":[]}}"#).into_bytes()
    };
    let method = String::from_utf8(post(CHAT, &good, &body("it", "u"))).expect("text");
    let method = method.replacen("POST", &word().to_uppercase(), 1).into_bytes();
    let (id, wanted) = (word(), word());
    let named = [good[0], ("x-request-id", &id), ("x-flotilla-user", &wanted)];
    vec![
        (post(CHAT, &good, &body(&word(), "u")), 404),
        (post(CHAT, &good, &body(&format!("good-{}", word()), &word())), 200),
        (post(CHAT, &named, &body("it", &word())), 200),
        (post(&format!("/v1/{}", word()), &good, b"{}"), 404),
        (get(&format!("/{}?{}={}", word(), word(), word()), &good), 404),
        (get(&format!("/v1/models/{}", word()), &good), 404),
        (method, 405),
        (post(CHAT, &[("authorization", &format!("Bearer {}", word()))], b"{}"), 401),
        (get(&format!("/v1/models?key={}", word()), &[]), 401),
        (post(CHAT, &[good[0], (&word(), &word())], &body("it", "u")), 200),
    ]
}

fn series(node: &Node) -> usize {
    node.metrics().lines().filter(|line| !line.starts_with('#') && line.contains(' ')).count()
}

// T30, the series part
#[tokio::test]
async fn ten_thousand_strangers_leave_the_metrics_as_they_are() {
    // A provider whose target passes any model on, and a route that takes any `good-` one.
    let wall = Wall::always(Script::json(200, r#"{"choices":[]}"#));
    let node = Node::with(
        &format!(
            "{}routes: [{{ name: good, match: {{ model: \"good-*\" }}, pool: it }}]\n\
             keys: [{{ name: k, key: good }}]\n",
            document(&wall, "a")
        ),
        &[],
    );
    let mut dice = Dice(7);
    let mut client = Client::connect(node.data).await;
    let mut before = 0;
    let mut asked = 0;
    while asked < 10_000 {
        for (request, status) in strangers(&mut dice) {
            client.send(&request).await;
            let shown = String::from_utf8_lossy(&request).into_owned();
            let response = client.response().await;
            assert_eq!(response.status, status, "{shown}: {}", response.text());
            asked += 1;
            if response.header("connection") == Some("close") {
                client = Client::connect(node.data).await;
            }
        }
        // Every kind of request has come once.
        if before == 0 {
            before = series(&node);
        }
    }
    assert!(before > 20, "{before} series");
    assert_eq!(series(&node), before);
    assert!(!node.metrics().contains("good-"), "no name of a client is a label");
}
