//! T27: many large bodies at once, in a process of its own so that its memory can be read.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla::config::Env;
use futures_util::future::join_all;

use crate::support::client::{Client, ask, chat, post};
use crate::support::eventually::eventually;
use crate::support::node::{Node, metric};
use crate::support::process::Process;
use crate::support::wall::{Attempt, DEADLINE, Gate, Script, Wall, chunk};

const CHAT: &str = "/v1/chat/completions";
const MIB: u64 = 1024 * 1024;
/// For all large bodies together, on a machine with its hands full.
const PATIENCE: Duration = Duration::from_secs(120);

/// A chat request whose message is as long as that, as an image in base64 is.
fn image(size: u64) -> Vec<u8> {
    let mut body = br#"{"messages":[{"role":"user","content":""#.to_vec();
    body.resize(body.len() + usize::try_from(size).expect("it fits"), b'A');
    body.extend_from_slice(br#""}],"model":"it"}"#);
    body
}

/// The same request with its body in chunks.
fn chunked(request: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(request, b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let head: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("content-l")).collect();
    let head = format!("{}\r\ntransfer-encoding: chunked\r\n\r\n", head.join("\r\n"));
    let pieces = request[end + 4..].chunks(60_000).map(chunk);
    let mut bytes = head.into_bytes();
    pieces.for_each(|piece| bytes.extend_from_slice(&piece));
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn document(wall: &Wall) -> String {
    format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: p, model: another-name }} }}
pools: {{ it: {{ tiers: [[t]] }} }}
",
        wall.base_url("/v1")
    )
}

/// How many bodies there are at once, and how large they are in MiB. T27 says 50 of 30 MB, which
/// `T27_BODIES=50` brings; built without optimization a node takes half a second of both cores for
/// each of them, so that without the variable it is 20.
fn bodies() -> (u64, u64) {
    let env = Env::of_process();
    let number = |name, default| env.get(name).map_or(default, |text| text.parse().expect(name));
    (number("T27_BODIES", 20), number("T27_MIB", 30))
}

fn is_large(attempt: &Attempt) -> bool {
    attempt.header("content-length").is_some_and(|length| length.len() > 4)
}

/// Sends this request again and again until it is over: how often, and the longest wait.
fn ask_until(over: &AtomicBool, address: SocketAddr, request: &[u8]) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (mut asked, mut slowest) = (0, Duration::ZERO);
        while !over.load(Ordering::SeqCst) {
            let begun = Instant::now();
            assert_eq!(ask(address, request).await.status, 200);
            slowest = slowest.max(begun.elapsed());
            asked += 1;
        }
        (asked, slowest)
    })
}

// T27. What is compared: the peak resident memory of the process (VmHWM) from its start, with the
// resident memory (VmRSS) of the same process idle after a first small request taken off, against
// the bytes of the bodies in flight, all of them held at once. Every other body comes in chunks, so
// that its length is not known before its end, and each is sent to two providers, one by one.
#[tokio::test]
async fn large_bodies_are_in_memory_once() {
    let gate = Gate::new();
    // Its body has gone out, but until the answer comes another target may need it. (What a
    // provider that does not read costs is tested with the upstream.)
    let wall = Wall::start_early(false, {
        let gate = gate.clone();
        move |attempt| {
            let answer = Script::json(200, r#"{"choices":[]}"#);
            if is_large(attempt) {
                Script::new().discard().wait(&gate).then(answer)
            } else {
                Script::new().read().then(answer)
            }
        }
    });
    let full = Wall::start_early(false, |_| Script::json(503, "{}").close());
    let (count, mib) = bodies();
    let budget = format!("{}MiB", count * (mib + 1));
    let env = [("FLOTILLA_BODY_BUDGET", budget.as_str())];
    let document = format!(
        "providers:
  full: {{ protocol: openai, base_url: \"{}\", api_key: sk }}
  p: {{ protocol: openai, base_url: \"{}\", api_key: sk }}
targets: {{ f: {{ provider: full }}, t: {{ provider: p, model: another-name }} }}
pools: {{ it: {{ tiers: [[f], [t]] }} }}
",
        full.base_url("/v1"),
        wall.base_url("/v1")
    );
    let node = Process::start(&document, &env);
    let small = post(CHAT, &[], &chat("it", false));
    assert_eq!(ask(node.data, &small).await.status, 200);
    let idle = node.memory("VmRSS");

    let body = image(mib * MIB);
    let large = post(CHAT, &[], &body);
    let in_flight = count * body.len() as u64;
    let open = Cell::new(false);
    let in_chunks = chunked(&large);
    let upload = async |number: u64| {
        let mut client = Client::connect(node.data).await;
        let request = if number.is_multiple_of(2) { &large } else { &in_chunks };
        for piece in request.chunks(1 << 20) {
            client.send(piece).await;
        }
        eventually(PATIENCE, || open.get()).await;
        client.response().await
    };
    // Small requests go on meanwhile, from a thread of their own.
    let over = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (data, over) = (node.data, Arc::clone(&over));
        move || ask_until(&over, data, &small)
    });
    let all_there = async {
        eventually(PATIENCE, || {
            let heads = wall.attempts().iter().filter(|attempt| is_large(attempt)).count();
            heads as u64 == count && metric(node.admin, "flotilla_body_bytes") >= in_flight as f64
        })
        .await;
        over.store(true, Ordering::SeqCst);
        let held = node.memory("VmRSS");
        gate.open();
        open.set(true);
        held
    };
    let (answers, held) = tokio::join!(join_all((0..count).map(&upload)), all_there);
    let (asked, slowest) = asking.join().expect("small requests are answered");
    // No bound on their time but one that a stuck worker fails.
    assert!(asked > 0 && slowest < Duration::from_secs(2), "{asked}, slowest {slowest:?}");
    for answer in &answers {
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert_eq!(answer.header("x-flotilla-attempts"), Some("2"));
    }

    let peak = node.memory("VmHWM").saturating_sub(idle);
    let shown = format!(
        "{count} bodies of {mib} MiB: {in_flight} bytes in flight, peak {peak}, held {held}, idle \
         {idle}; {asked} small requests meanwhile, the slowest {slowest:?}"
    );
    assert!(peak * 10 <= in_flight * 12, "{shown}");
    // The other side of it: they were in flight, and they are gone.
    assert!(peak * 10 >= in_flight * 8, "{shown}");
    eventually(DEADLINE, || metric(node.admin, "flotilla_body_bytes") == 0.0).await;
    eventually(DEADLINE, || node.memory("VmRSS").saturating_sub(idle) * 5 <= in_flight).await;
}

// T27
#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_limit_is_named() {
    let wall = Wall::always(Script::json(200, "{}"));
    let node = Node::with(&document(&wall), &[("FLOTILLA_BODY_LIMIT", "2MiB")]);
    let whole = post(CHAT, &[], &image(2 * MIB));
    let announced = ask(node.data, &whole).await;
    let chunked = ask(node.data, &chunked(&whole)).await;
    for response in [announced, chunked] {
        assert_eq!((response.status, response.code()), (413, "body_too_large".into()));
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert!(response.complete && response.text().contains("2097152"), "{}", response.text());
        assert!(response.text().contains("FLOTILLA_BODY_LIMIT"));
    }
    assert_eq!((wall.connections(), node.metric("flotilla_body_bytes")), (0, 0.0));
}

// T27
#[tokio::test]
async fn bodies_over_the_budget_are_refused_and_those_within_it_are_served() {
    let gate = Gate::new();
    let wall = Wall::always(Script::json(200, r#"{"choices":[]}"#).after(&gate));
    let env = [("FLOTILLA_BODY_BUDGET", "10MiB"), ("FLOTILLA_BODY_LIMIT", "4MiB")];
    let node = Node::with(&document(&wall), &env);
    let large = post(CHAT, &[], &image(3 * MIB));
    let mut within = Vec::new();
    for number in 0..3 {
        let mut client = Client::connect(node.data).await;
        client.send(&large).await;
        wall.attempt(number).await;
        within.push(client);
    }
    let refused = ask(node.data, &large).await;
    assert_eq!((refused.status, refused.code()), (429, "node_busy".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(node.metric("flotilla_body_bytes") < 10.0 * MIB as f64);
    gate.open();
    for client in &mut within {
        assert_eq!(client.response().await.status, 200);
    }
    eventually(DEADLINE, || node.metric("flotilla_body_bytes") == 0.0).await;
    assert_eq!(ask(node.data, &large).await.status, 200);
}
