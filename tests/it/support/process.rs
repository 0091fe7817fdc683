//! Nodes as processes of their own, as operators run them: signals, exit codes, memory, the log.
//!
//! ```ignore
//! let mut node = Process::start("", &[]);             // `flotilla serve`, on ports of its own
//! ask_chat(node.data, "sim", false).await;
//! node.signal("TERM");
//! assert_eq!(node.exit().await, Some(0));
//! assert!(node.stderr().contains("drained"));
//! ```

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::eventually::eventually;
use super::node::{Node, scratch};
use super::wall::DEADLINE;

/// A process, killed when it is dropped.
pub(crate) struct Process {
    /// Where clients are served; an address that nobody serves where the process never got there.
    pub(crate) data: SocketAddr,
    /// Where operators are served.
    pub(crate) admin: SocketAddr,
    /// The document that the node watches.
    pub(crate) document: PathBuf,
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// What every process of a test is given, unless it says otherwise; nothing else is inherited.
const USUAL: [(&str, &str); 7] = [
    ("FLOTILLA_LISTEN", "127.0.0.1:0"),
    ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0"),
    ("FLOTILLA_SIM_LISTEN", "127.0.0.1:0"),
    ("FLOTILLA_WORKERS", "2"),
    ("FLOTILLA_LAME_DUCK", "0s"),
    ("FLOTILLA_LOG_FORMAT", "json"),
    ("RUST_BACKTRACE", "0"),
];

impl Process {
    /// Starts `flotilla serve` with this document (an empty one is none) and these variables, and
    /// waits until it serves.
    pub(crate) fn start(document: &str, env: &[(&str, &str)]) -> Self {
        let (mut process, addresses) = Self::launch(&["serve"], document, env);
        let addresses = addresses.recv_timeout(Duration::from_secs(30));
        assert!(addresses.is_ok(), "the node does not serve: {}", process.stderr());
        (process.data, process.admin) = addresses.expect("it was just seen to be");
        process
    }

    /// Runs the binary with these arguments, for what ends by itself.
    pub(crate) fn run(arguments: &[&str], document: &str, env: &[(&str, &str)]) -> Self {
        Self::launch(arguments, document, env).0
    }

    fn launch(
        arguments: &[&str],
        document: &str,
        env: &[(&str, &str)],
    ) -> (Self, mpsc::Receiver<(SocketAddr, SocketAddr)>) {
        let path = scratch("fleet.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(arguments).env_clear().envs(USUAL);
        if !document.is_empty() {
            std::fs::write(&path, document).expect("the document is written");
            command.env("FLOTILLA_CONFIG", &path);
        }
        command.envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (serving, addresses) = mpsc::sync_channel(1);
        let reader = std::thread::spawn({
            let stderr = Arc::clone(&stderr);
            move || {
                for line in lines.map_while(Result::ok) {
                    if let Some(addresses) = addresses_of(&line) {
                        serving.try_send(addresses).ok();
                    }
                    let mut stderr = stderr.lock().unwrap_or_else(PoisonError::into_inner);
                    stderr.push_str(&line);
                    stderr.push('\n');
                }
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (data, admin, reader) = (nowhere, nowhere, Some(reader));
        (Self { data, admin, document: path, child, stderr, reader }, addresses)
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} reaches the process");
    }

    /// Waits for the end of the process; its exit code, or none where a signal ended it.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(DEADLINE, || {
            status = self.child.try_wait().expect("the process is ours");
            status.is_some()
        })
        .await;
        // The log is whole only now.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of the log does not panic");
        }
        status.and_then(|status| status.code())
    }

    /// True while the process has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the process is ours").is_none()
    }

    /// Everything it wrote to its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until its standard error holds this.
    pub(crate) async fn says(&self, text: &str) {
        eventually(DEADLINE, || self.stderr().contains(text)).await;
    }

    /// A figure of `/proc/<pid>/status` in bytes, such as `VmRSS`.
    pub(crate) fn memory(&self, figure: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("the kernel tells it in kB") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// The addresses in the line that says `serving`, as JSON or as text.
fn addresses_of(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (data, admin) = if line.contains(r#""message":"serving""#) {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["data"].as_str()?.to_owned(), line["admin"].as_str()?.to_owned())
    } else {
        let (_, fields) = line.split_once(" serving ")?;
        let field = |name| {
            let (_, rest) = fields.split_once(name)?;
            Some(rest.split(' ').next().unwrap_or(rest).to_owned())
        };
        (field(" data=")?, field(" admin=")?)
    };
    Some((data.parse().ok()?, admin.parse().ok()?))
}

/// Several nodes over the same document.
pub(crate) struct Fleet {
    /// Those in this process.
    pub(crate) nodes: Vec<Node>,
    /// Those in processes of their own.
    pub(crate) processes: Vec<Process>,
    /// The document that all of them watch.
    pub(crate) document: PathBuf,
}

/// Starts `nodes` in this process and `processes` as processes, all over one document, with these
/// variables.
pub(crate) fn spawn_fleet(
    nodes: usize,
    processes: usize,
    document: &str,
    env: &[(&str, &str)],
) -> Fleet {
    let path = scratch("fleet.yaml");
    std::fs::write(&path, document).expect("the document is written");
    let shared = path.display().to_string();
    let env: Vec<_> = env.iter().copied().chain([("FLOTILLA_CONFIG", shared.as_str())]).collect();
    let nodes = (0..nodes).map(|_| Node::with("", &env)).collect();
    let processes = (0..processes).map(|_| Process::start("", &env)).collect();
    Fleet { nodes, processes, document: path }
}

impl Fleet {
    /// Where the data listeners are: those of this process first.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let nodes = self.nodes.iter().map(|node| node.data);
        nodes.chain(self.processes.iter().map(|process| process.data)).collect()
    }
}
