//! T28, the part that one node has: it leaves without losing a request. Nodes are processes here,
//! since what is tested is what a signal does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::support::client::{Client, Response, ask, ask_chat, chat, get, post};
use crate::support::eventually::eventually;
use crate::support::process::{Process, spawn_fleet};
use crate::support::wall::{DEADLINE, Gate, Script, Wall};

const CHAT: &str = "/v1/chat/completions";
/// Longer than any test: a lame duck or limit that is never reached.
const NEVER: &str = "60s";
/// What ends at once ends within this.
const AT_ONCE: Duration = Duration::from_secs(3);

fn document(wall: &Wall) -> String {
    format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: p }} }}
pools: {{ it: {{ tiers: [[t]] }} }}
",
        wall.base_url("/v1")
    )
}

/// A provider whose streams give one event at once and the rest when the gate opens; its plain
/// answers wait for the gate altogether, and so do streams for the user `silent`.
fn patient(gate: &Gate) -> Wall {
    let gate = gate.clone();
    Wall::start(move |attempt| {
        let asked = attempt.json();
        let content = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
        if asked["stream"] != true {
            let answer = Script::json(200, r#"{"choices":[]}"#);
            return if asked["user"] == "quick" { answer } else { answer.after(&gate) };
        }
        let head = Script::sse_head();
        let head = if asked["user"] == "silent" { head.wait(&gate) } else { head.event(content) };
        head.wait(&gate).event(content).done()
    })
}

fn quick() -> Vec<u8> {
    post(CHAT, &[], br#"{"model":"it","user":"quick","messages":[]}"#)
}

fn silent() -> Vec<u8> {
    post(CHAT, &[], br#"{"model":"it","user":"silent","stream":true,"messages":[]}"#)
}

async fn begin(address: SocketAddr, request: &[u8]) -> Client {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client
}

/// A stream that has given its first event.
async fn begin_stream(address: SocketAddr) -> Client {
    let mut client = begin(address, &post(CHAT, &[], &chat("it", true))).await;
    assert_eq!(client.head().await.status, 200);
    client.until(b"\"x\"").await.expect("its first event");
    client
}

async fn ready(address: SocketAddr) -> u16 {
    ask(address, &get("/readyz", &[])).await.status
}

/// Waits until nobody listens there.
async fn refuses(address: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(start.elapsed() < DEADLINE, "connections are still accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// T28
#[tokio::test]
async fn through_the_lame_duck_a_node_is_unready_and_serves_all_the_same() {
    let gate = Gate::new();
    let wall = patient(&gate);
    let mut node = Process::start(&document(&wall), &[("FLOTILLA_LAME_DUCK", NEVER)]);
    assert_eq!((ready(node.data).await, ready(node.admin).await), (200, 200));
    let mut kept = begin(node.data, &quick()).await;
    assert_eq!(kept.response().await.header("connection"), None);
    let stream = begin_stream(node.data).await;
    let mut plain = begin(node.data, &post(CHAT, &[], &chat("it", false))).await;
    wall.attempt(2).await;

    node.signal("TERM");
    node.says("draining").await;
    for address in [node.data, node.admin] {
        let response = ask(address, &get("/readyz", &[])).await;
        assert_eq!((response.status, response.text().trim()), (503, "draining"));
        assert_eq!(ask(address, &get("/livez", &[])).await.status, 200, "alive all the same");
    }
    // New connections and those that were there: served, and asked to close.
    let response = ask(node.data, &quick()).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    kept.send(&quick()).await;
    let response = kept.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(kept.is_closed().await);
    let response = ask(node.data, &get("/v1/models", &[])).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    let late = begin_stream(node.data).await;

    // What was begun ends as it would have, before the signal or after it.
    gate.open();
    for mut client in [stream, late] {
        client.until(b"[DONE]").await.expect("its end");
        client.until(b"\r\n0\r\n\r\n").await.expect("a clean end");
    }
    let response = plain.response().await;
    assert_eq!((response.status, response.complete), (200, true));
    assert!(node.is_alive(), "the lame duck is not over");

    node.signal("TERM");
    let begun = Instant::now();
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE);
    assert!(node.stderr().contains("second signal"));
}

// T28
#[tokio::test]
async fn after_the_lame_duck_requests_in_flight_end_in_their_own_time() {
    let gate = Gate::new();
    let wall = patient(&gate);
    let env = [("FLOTILLA_DRAIN_LIMIT", NEVER)];
    let mut node = Process::start(&document(&wall), &env);
    let mut stream = begin_stream(node.data).await;
    let mut plain = begin(node.data, &post(CHAT, &[], &chat("it", false))).await;
    let mut uncommitted = begin(node.data, &silent()).await;
    // Its body is not all there yet.
    let request = quick();
    let mut upload = begin(node.data, &request[..request.len() - 5]).await;
    wall.attempt(2).await;

    node.signal("TERM");
    refuses(node.data).await;
    assert_eq!(ready(node.admin).await, 503, "operators still see it");
    upload.send(&request[request.len() - 5..]).await;
    let response = upload.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(node.is_alive(), "requests are in flight");
    gate.open();
    stream.until(b"[DONE]").await.expect("its end");
    stream.until(b"\r\n0\r\n\r\n").await.expect("a clean end");
    let begun = Instant::now();
    for client in [&mut plain, &mut uncommitted] {
        let response = client.response().await;
        assert_eq!((response.status, response.complete), (200, true), "{}", response.text());
    }
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(node.stderr().contains(r#""cut":0,"left":0"#), "{}", node.stderr());
}

fn is_told(response: &Response) {
    assert_eq!((response.status, response.code()), (503, "node_draining".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(response.complete);
}

// T28
#[tokio::test]
async fn at_the_drain_limit_everybody_is_told() {
    let gate = Gate::new();
    let wall = patient(&gate);
    let mut node = Process::start(&document(&wall), &[("FLOTILLA_DRAIN_LIMIT", "300ms")]);
    let mut stream = begin_stream(node.data).await;
    let plain = begin(node.data, &post(CHAT, &[], &chat("it", false))).await;
    let uncommitted = begin(node.data, &silent()).await;
    let request = quick();
    let upload = begin(node.data, &request[..request.len() - 5]).await;
    wall.attempt(2).await;

    node.signal("TERM");
    let begun = Instant::now();
    let rest = stream.until(b"stream_interrupted").await.expect("an event that says so");
    assert!(begun.elapsed() >= Duration::from_millis(300), "not before the limit");
    assert!(String::from_utf8_lossy(&rest).contains("data: {\"error\""));
    assert_eq!(stream.until(b"\r\n0\r\n\r\n").await, None, "no clean end");
    // Each closes once it has heard, as it was asked to; one in mid-upload has 5 s to hear it.
    for mut client in [plain, uncommitted, upload] {
        is_told(&client.response().await);
    }
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(node.stderr().contains(r#""cut":4,"left":0"#), "{}", node.stderr());
    // And the provider is let go.
    for number in 0..3 {
        wall.attempt(number).await.closed().await;
    }
}

// T28
#[tokio::test]
async fn an_idle_node_is_gone_at_once_whatever_connections_lie_open() {
    let wall = patient(&Gate::new());
    let mut node = Process::start(&document(&wall), &[]);
    let mut kept = begin(node.data, &quick()).await;
    assert_eq!(kept.response().await.status, 200);
    let mut fresh = Client::connect(node.data).await;
    let mut half = begin(node.data, b"GET /livez HTTP/1.1\r\nhost:").await;
    assert_eq!(ready(node.data).await, 200);
    node.signal("TERM");
    let begun = Instant::now();
    assert!(kept.is_closed().await && fresh.is_closed().await);
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(half.try_head().await.is_none_or(|head| head.status == 408));
}

// T28: whoever presses ctrl-c is no balancer.
#[tokio::test]
async fn an_interrupt_skips_the_lame_duck_and_loses_nothing() {
    let gate = Gate::new();
    let wall = patient(&gate);
    let mut node = Process::start(&document(&wall), &[("FLOTILLA_LAME_DUCK", NEVER)]);
    let mut stream = begin_stream(node.data).await;
    node.signal("INT");
    refuses(node.data).await;
    gate.open();
    stream.until(b"[DONE]").await.expect("its end");
    let begun = Instant::now();
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn a_second_signal_stops_a_node_that_waits_for_requests() {
    let wall = patient(&Gate::new());
    let mut node = Process::start(&document(&wall), &[("FLOTILLA_DRAIN_LIMIT", NEVER)]);
    let mut stream = begin_stream(node.data).await;
    node.signal("TERM");
    refuses(node.data).await;
    node.signal("INT");
    let begun = Instant::now();
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(stream.until(b"\r\n0\r\n\r\n").await, None, "no clean end");
}

// T28, T15
#[tokio::test]
async fn a_client_that_leaves_is_not_waited_for() {
    let wall = patient(&Gate::new());
    let mut node = Process::start(&document(&wall), &[("FLOTILLA_DRAIN_LIMIT", NEVER)]);
    let stream = begin_stream(node.data).await;
    let plain = begin(node.data, &post(CHAT, &[], &chat("it", false))).await;
    wall.attempt(1).await;
    node.signal("TERM");
    refuses(node.data).await;
    assert!(node.is_alive(), "requests are in flight");
    stream.reset();
    drop(plain);
    let begun = Instant::now();
    assert_eq!(node.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn the_simulator_ends_with_a_signal() {
    let mut sim = Process::run(&["sim"], "", &[]);
    sim.says("simulated providers on").await;
    sim.signal("TERM");
    let begun = Instant::now();
    assert_eq!(sim.exit().await, Some(0));
    assert!(begun.elapsed() < AT_ONCE);
}

/// One look of a balancer. A node that is just going away may accept it and never answer: that is
/// no lost request, it is how a balancer finds out.
async fn looks_ready(address: SocketAddr) -> bool {
    let Some(mut client) = Client::try_connect(address).await else { return false };
    client.send(&get("/readyz", &[])).await;
    client.try_head().await.is_some_and(|head| head.status == 200)
}

/// A balancer's view: who was ready when it last looked.
#[derive(Default)]
struct Balancer {
    members: RefCell<Vec<SocketAddr>>,
    ready: RefCell<Vec<SocketAddr>>,
    over: Cell<bool>,
}

impl Balancer {
    /// Looks at all members, again and again.
    async fn look(&self) {
        while !self.over.get() {
            let members = self.members.borrow().clone();
            let mut ready = Vec::new();
            for address in members {
                if looks_ready(address).await {
                    ready.push(address);
                }
            }
            *self.ready.borrow_mut() = ready;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client that keeps its connection as long as the node is ready and does not ask otherwise.
    /// Counts the requests that were answered wholly.
    async fn load(&self, number: usize) -> usize {
        let mut answered = 0;
        let mut kept: Option<(SocketAddr, Client)> = None;
        while !self.over.get() {
            let ready = self.ready.borrow().clone();
            let known = kept.take().filter(|(address, _)| ready.contains(address));
            let (address, mut client) = match known {
                Some(known) => known,
                None => {
                    let address = ready[(number + answered) % ready.len()];
                    (address, Client::connect(address).await)
                }
            };
            let stream = (number + answered).is_multiple_of(2);
            client.send(&post(CHAT, &[], &chat("it", stream))).await;
            let response = client.response().await;
            assert_eq!((response.status, response.complete), (200, true), "{}", response.text());
            assert!(!stream || response.text().ends_with("data: [DONE]\n\n"));
            answered += 1;
            if response.header("connection") != Some("close") {
                kept = Some((address, client));
            }
        }
        answered
    }
}

// T28 for three nodes and streams of 60 ms
#[tokio::test]
async fn a_rolling_restart_loses_no_request() {
    let content = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let wall = Wall::start(move |attempt| {
        if attempt.json()["stream"] != true {
            return Script::json(200, r#"{"choices":[]}"#);
        }
        let events = Script::sse_head().event(content).pause(Duration::from_millis(60));
        events.event(content).done()
    });
    // Long enough for this balancer to look elsewhere, on a machine that is busy with other tests.
    let env = [("FLOTILLA_LAME_DUCK", "3s"), ("FLOTILLA_DRAIN_LIMIT", NEVER)];
    let mut fleet = spawn_fleet(0, 3, &document(&wall), &env);
    let shared = fleet.document.display().to_string();
    let env = [env[0], env[1], ("FLOTILLA_CONFIG", shared.as_str())];
    let balancer = Rc::new(Balancer::default());
    *balancer.members.borrow_mut() = fleet.addresses();
    *balancer.ready.borrow_mut() = fleet.addresses();
    let restart = async {
        for _ in 0..3 {
            let new = Process::start("", &env);
            let mut old = fleet.processes.remove(0);
            balancer.members.borrow_mut().push(new.data);
            eventually(DEADLINE, || balancer.ready.borrow().contains(&new.data)).await;
            fleet.processes.push(new);
            old.signal("TERM");
            eventually(DEADLINE, || !balancer.ready.borrow().contains(&old.data)).await;
            assert_eq!(old.exit().await, Some(0));
            assert!(old.stderr().contains(r#""cut":0,"left":0"#), "{}", old.stderr());
            balancer.members.borrow_mut().retain(|address| *address != old.data);
        }
        balancer.over.set(true);
    };
    let clients = join_all((0..8).map(|number| balancer.load(number)));
    let ((), (), answered) = tokio::join!(restart, balancer.look(), clients);
    let answered: usize = answered.iter().sum();
    assert!(answered > 100, "{answered} requests");
    assert_eq!(wall.count(), answered, "each was sent once");
    assert_eq!(ask_chat(fleet.addresses()[0], "it", false).await.status, 200);
}
