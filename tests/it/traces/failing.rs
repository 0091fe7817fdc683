//! A collector that fails, in every way, is nobody's problem but its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{ANSWER, document, end, node, request};
use crate::support::blackhole::Blackhole;
use crate::support::client::ask;
use crate::support::collector::Collector;
use crate::support::eventually::eventually;
use crate::support::node::{Node, scratch};
use crate::support::wall::{DEADLINE, Script, Wall};

/// The longest that a process may take to end.
const EXIT: Duration = Duration::from_secs(5);

/// A node in a process of its own.
struct Process {
    child: Child,
    data: SocketAddr,
}

impl Process {
    fn start(document: &str, endpoint: &str) -> Self {
        let path = scratch("fleet.yaml");
        std::fs::write(&path, document).expect("the document is written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_flotilla"))
            .arg("serve")
            .env_clear()
            .env("FLOTILLA_LISTEN", "127.0.0.1:0")
            .env("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0")
            .env("FLOTILLA_WORKERS", "1")
            .env("FLOTILLA_LAME_DUCK", "0s")
            .env("FLOTILLA_CONFIG", path)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_BSP_SCHEDULE_DELAY", "10")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let said = lines.find_map(|line| {
            let line = line.ok()?;
            let rest = line.strip_prefix("flotilla serves http://")?;
            rest.split_once("/v1")?.0.parse().ok()
        });
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, data: said.expect("it says where it serves") }
    }

    /// Asks it to end, and says how long that took.
    async fn end(mut self) -> Duration {
        let begun = Instant::now();
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().expect("kill is there");
        assert!(killed.success());
        let mut code = None;
        eventually(DEADLINE, || {
            code = self.child.try_wait().expect("it is our child").map(|status| status.code());
            code.is_some()
        })
        .await;
        assert_eq!(code, Some(Some(0)), "it ends well");
        begun.elapsed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// T30: requests are served as ever, and the process ends in time.
#[tokio::test]
async fn a_collector_that_fails_changes_nothing_for_users() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let gone = nobody.local_addr().expect("it is bound");
    drop(nobody);
    let silent = Wall::always(Script::new().freeze());
    let resets = Wall::always(Script::new().reset());
    let busy = Wall::always(Script::json(503, ""));
    let endpoints = [
        silent.base_url(""),
        resets.base_url(""),
        busy.base_url(""),
        format!("http://{gone}"),
        // Never connected to.
        "http://169.254.169.254".to_owned(),
    ];
    let (first, second) =
        (Wall::always(Script::json(200, ANSWER)), Wall::always(Script::json(500, "{}")));
    let document = document(&first, &second, "");
    let serve = async |(endpoint, process): (&String, Process)| {
        for _ in 0..50 {
            let begun = Instant::now();
            let response = ask(process.data, &request("only", false, &[])).await;
            assert!(response.status == 200 && response.complete);
            // Whoever waited for the collector would wait for its time-out, twice this.
            assert!(begun.elapsed() < Duration::from_secs(5), "{endpoint}");
        }
        let took = process.end().await;
        assert!(took < EXIT, "{endpoint}: {took:?}");
    };
    let processes =
        endpoints.iter().map(|endpoint| (endpoint, Process::start(&document, endpoint)));
    let processes: Vec<_> = processes.collect();
    futures_util::future::join_all(processes.into_iter().map(serve)).await;
    assert!(silent.count() > 0 && resets.count() > 0 && busy.count() > 0);
}

/// How long each of so many requests took, from the shortest to the longest; all go well.
async fn times(node: &Node, requests: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let begun = Instant::now();
        let response = ask(node.data, &request("only", false, &[])).await;
        assert!(response.status == 200 && response.complete);
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

// T30: beside a node without traces, one whose collector cannot even be connected to serves as
// many and about as fast. The rounds take turns, so that a busy machine is busy for both.
#[tokio::test]
async fn a_black_holed_collector_changes_no_request() {
    let hole = Blackhole::new();
    let (first, second) =
        (Wall::always(Script::json(200, ANSWER)), Wall::always(Script::json(500, "{}")));
    let document = document(&first, &second, "");
    let endpoint = format!("http://{}", hole.address());
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
    ];
    let (without, with) = (Node::serving(&document), Node::with(&document, &env));
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        off.extend(times(&without, 25).await);
        on.extend(times(&with, 25).await);
    }
    let at = |times: &mut Vec<Duration>, share: usize| {
        times.sort();
        times[times.len() * share / 100]
    };
    let generous = Duration::from_millis(20);
    for share in [50, 95] {
        let (off, on) = (at(&mut off, share), at(&mut on, share));
        assert!(on < off * 3 + generous, "at {share} %: {on:?} instead of {off:?}");
    }
    assert!(hole.connecting() > 0, "the collector is looked for");
    // 400 spans, of which the queue holds 64: the rest is thrown away while requests are served.
    let dropped = || with.metric(r#"flotilla_trace_spans_total{outcome="dropped"}"#);
    eventually(DEADLINE, || dropped() > 200.0).await;
    assert!(with.metric("flotilla_trace_spans_queued") < 64.5);
    let ok = |node: &Node| {
        node.metric(
            r#"flotilla_requests_total{endpoint="/chat/completions",pool="only",outcome="ok""#,
        )
    };
    eventually(DEADLINE, || ok(&with) > 199.5 && ok(&without) > 199.5).await;
    let begun = Instant::now();
    end(with);
    assert!(begun.elapsed() < EXIT, "it ends in time: {:?}", begun.elapsed());
}

// T30: what waits for a collector is bounded, and what is thrown away is counted.
#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_counted() {
    let silent = Collector { wall: Wall::always(Script::new().freeze()) };
    let (first, second) =
        (Wall::always(Script::json(200, ANSWER)), Wall::always(Script::json(500, "{}")));
    let env = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ];
    let node = node(&document(&first, &second, ""), &silent, &env);
    for _ in 0..50 {
        assert_eq!(ask(node.data, &request("only", false, &[])).await.status, 200);
    }
    let dropped = || node.metric(r#"flotilla_trace_spans_total{outcome="dropped"}"#);
    // A request's span ends right behind its answer.
    eventually(DEADLINE, || dropped() >= 84.0).await;
    assert!((dropped() - 84.0).abs() < 0.5, "two spans each, less the sixteen that wait");
    assert!(node.metric(r#"flotilla_trace_spans_total{outcome="exported"}"#) < 0.5);
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_waited() {
    let collector = Collector {
        wall: Wall::sequence([Script::json(503, ""), Script::new().reset(), Script::json(200, "")]),
    };
    let (first, second) =
        (Wall::always(Script::json(200, ANSWER)), Wall::always(Script::json(500, "{}")));
    let node = node(&document(&first, &second, ""), &collector, &[]);
    assert_eq!(ask(node.data, &request("only", false, &[])).await.status, 200);
    let exported = || node.metric(r#"flotilla_trace_spans_total{outcome="exported"}"#);
    eventually(DEADLINE, || exported() >= 2.0).await;
    let posts = collector.wall.attempts();
    assert!(posts.len() >= 3);
}
