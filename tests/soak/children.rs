//! The processes: a node, its simulated providers, and the document between them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::wait;

/// Configured keys: `key-0`, `key-1`, ...
pub(crate) const KEYS: usize = 300;
/// Generations of simulators that live at once: the one in force and the one before it.
const GENERATIONS: usize = 2;

/// Everything around the clients.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) simulators: Vec<Simulator>,
    generation: usize,
    document: PathBuf,
    /// Where nobody listens, for a target that cannot be connected to.
    nowhere: SocketAddr,
    /// A trace collector that accepts and never answers.
    _collector: TcpListener,
}

/// A `flotilla sim`, killed when it is dropped.
pub(crate) struct Simulator {
    address: SocketAddr,
    child: Child,
}

/// A `flotilla serve`, killed when it is dropped.
pub(crate) struct Node {
    pub(crate) data: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

/// Starts the binary; what `find` reads out of its log, as soon as it is there.
fn start<T: std::fmt::Debug + Send + 'static>(
    argument: &str,
    env: &[(&str, &str)],
    find: impl Fn(&str) -> Option<T> + Send + 'static,
) -> (Child, T) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.arg(argument).env_clear().envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut log = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let (found, first) = mpsc::sync_channel(1);
    // It ends with the process.
    std::thread::spawn(move || {
        let (mut line, mut seen) = (String::new(), String::new());
        while log.read_line(&mut line).is_ok_and(|read| read > 0) {
            if let Some(value) = find(&line) {
                found.try_send(Ok(value)).ok();
                // The rest is only carried away.
                std::io::copy(&mut log, &mut std::io::sink()).ok();
                return;
            }
            seen.push_str(&line);
            line.clear();
        }
        found.try_send(Err(seen)).ok();
    });
    let first = first.recv_timeout(Duration::from_secs(30)).expect("it starts in time");
    assert!(first.is_ok(), "flotilla {argument} ended: {first:?}");
    (child, first.expect("it was just seen to be"))
}

impl Simulator {
    fn start() -> Self {
        let env = [
            ("FLOTILLA_SIM_LISTEN", "127.0.0.1:0"),
            ("FLOTILLA_WORKERS", "1"),
            ("FLOTILLA_LOG", "error"),
        ];
        let (child, address) = start("sim", &env, |line| {
            let (_, rest) = line.split_once("http://")?;
            rest.split('/').next()?.parse().ok()
        });
        Self { address, child }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl World {
    pub(crate) fn start() -> Self {
        let gone = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let nowhere = gone.local_addr().expect("it is bound");
        drop(gone);
        let collector = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", collector.local_addr().expect("it is bound"));
        let simulators = vec![Simulator::start()];
        let name = format!("soak-{}.yaml", std::process::id());
        let document = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        write(&document, 0, simulators[0].address, nowhere);
        let path = document.display().to_string();
        let env = [
            ("FLOTILLA_LISTEN", "127.0.0.1:0"),
            ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0"),
            ("FLOTILLA_CONFIG", &path),
            ("FLOTILLA_WORKERS", "2"),
            ("FLOTILLA_LOG_FORMAT", "json"),
            ("FLOTILLA_HEAD_TIMEOUT", "2s"),
            ("FLOTILLA_BODY_STALL", "2s"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ];
        let (child, (data, admin)) = start("serve", &env, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let address = |name: &str| line[name].as_str()?.parse().ok();
            Some((address("data")?, address("admin")?))
        });
        let node = Node { data, admin, child };
        Self { node, simulators, generation: 0, document, nowhere, _collector: collector }
    }

    /// Another document: other names of targets and providers, at another address.
    pub(crate) fn change(&mut self) {
        self.generation += 1;
        let simulator = Simulator::start();
        write(&self.document, self.generation, simulator.address, self.nowhere);
        self.simulators.push(simulator);
        if self.simulators.len() > GENERATIONS {
            self.simulators.remove(0);
        }
    }

    /// Waits until these metrics are at nothing; what is not.
    pub(crate) fn settle(&self, limit: Duration, metrics: &[&str]) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let text = self.node.metrics();
            let left: Vec<_> = metrics
                .iter()
                .filter(|name| sum(&text, name) > 0.0)
                .map(|name| format!("{name} is still {}", sum(&text, name)))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(left.join("\n"));
            }
            wait(Duration::from_millis(100));
        }
    }

    /// A series whose labels a client or an old document made.
    pub(crate) fn strangers(&self) -> Option<String> {
        let text = self.node.metrics();
        let old = |line: &str| {
            let target = line.split_once("target=\"t").and_then(|(_, rest)| rest.split_once('"'));
            let number: Option<usize> = target.and_then(|(number, _)| number.parse().ok());
            // What was in flight when the document changed is still counted under the old name.
            number.is_some_and(|number| number + GENERATIONS < self.generation)
        };
        let made_up = |line: &str| line.contains("soak-") || line.contains("unknown-");
        text.lines().find(|line| old(line) || made_up(line)).map(str::to_owned)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.document));
    }
}

impl Node {
    /// What it has in memory, in bytes.
    pub(crate) fn rss(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the node lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<f64>().ok()).expect("the kernel tells it in kB") * 1024.0
    }

    /// The text of its metrics.
    pub(crate) fn metrics(&self) -> String {
        let mut socket = TcpStream::connect(self.admin).expect("the admin listener");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        socket.write_all(request).expect("the request is sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the metrics come in time");
        answer
    }

    /// The sum of all series of this family.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        sum(&self.metrics(), name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The sum of all series of this family.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let of_family =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines = metrics.lines().filter(of_family);
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// How many series each family has.
pub(crate) fn series(metrics: &str) -> BTreeMap<String, usize> {
    let mut families = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("flotilla_")) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        *families.entry(line[..end].to_owned()).or_default() += 1;
    }
    families
}

/// Writes the document of this generation. It is put in place whole.
fn write(path: &PathBuf, generation: usize, simulator: SocketAddr, nowhere: SocketAddr) {
    let mut text = format!(
        "providers:
  p{generation}: {{ protocol: openai, base_url: \"http://{simulator}/v1\", api_key: sk }}
  gone{generation}: {{ protocol: openai, base_url: \"http://{nowhere}/v1\", api_key: sk }}
targets:
  t{generation}: {{ provider: p{generation}, weight: 9 }}
  dead{generation}: {{ provider: gone{generation} }}
  spare{generation}: {{ provider: p{generation} }}
pools:
  it:
    tiers: [[t{generation}, dead{generation}], [spare{generation}]]
    timeouts: {{ connect: 500ms, first_token: 500ms, answer: 500ms, idle: 500ms, total: 5s }}
routes:
  - {{ name: any, match: {{ model: \"soak-*\" }}, pool: it }}
  - {{ name: faults, match: {{ model: \"sim-*\" }}, pool: it }}
tenants: {{ acme: {{}} }}
keys:
"
    );
    for key in 0..KEYS {
        text.push_str(&format!("  - {{ name: k{key}, tenant: acme, key: key-{key} }}\n"));
    }
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).expect("the document is written");
    std::fs::rename(&fresh, path).expect("the document is put in place");
}
