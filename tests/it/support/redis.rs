//! Redis servers of a test's own: real ones, on free ports, stopped, killed and started again.
//!
//! ```ignore
//! let server = Server::start();                      // Redis 7 on a port of its own
//! let server = Server::start_as(Kind::Valkey9, &["--maxmemory", "10mb"]);
//! server.pause();                                    // SIGSTOP: alive, and silent
//! ```
//!
//! A server is the child of a shell that reads from this process: when a test ends, however it ends,
//! the shell reads the end of its input and kills the server.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::{Commands, FromRedisValue};

use super::node::scratch;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

/// Keeps a server until its input ends; says the server's process id first.
const KEEPER: &str = r#""$@" & echo "pid $!"; read -r _; kill -9 $!; wait"#;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Debian's Redis 7.0.
    Redis7,
    /// The oldest that is supported.
    Redis6,
    /// The other one.
    Valkey9,
}

/// A running server.
pub(crate) struct Server {
    kind: Kind,
    /// Variables of its environment, besides ours.
    env: Vec<(&'static str, String)>,
    /// Its port; the same one after a restart.
    pub(crate) port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    tls: Option<Certificates>,
    running: Option<Running>,
}

/// What TLS needs, as PEM.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) client: (String, String),
    server: (String, String),
}

struct Running {
    pid: u32,
    keeper: Child,
    input: Option<ChildStdin>,
}

impl Kind {
    fn binary(self) -> PathBuf {
        let installed = |path: &str| {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join("redis");
            let path = target.join(path);
            assert!(path.exists(), "{} is missing: make need-redis", path.display());
            path
        };
        match self {
            Self::Redis7 => "redis-server".into(),
            Self::Redis6 => installed("6.2/redis-server"),
            Self::Valkey9 => installed("valkey-9/valkey-server"),
        }
    }
}

/// The variables under which a process sees a clock that is off by so much.
pub(crate) fn skew(offset: &str) -> [(&'static str, String); 3] {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let library = places.iter().map(|place| format!("{place}/faketime/libfaketimeMT.so.1"));
    let library = library.into_iter().find(|library| Path::new(library).exists());
    [
        ("LD_PRELOAD", library.expect("libfaketime is missing: make need-redis")),
        ("FAKETIME", offset.to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// The server that tests share which do it no harm: each uses a prefix of its own.
pub(crate) fn shared(kind: Kind) -> &'static Server {
    static SERVERS: [OnceLock<Server>; 3] = [const { OnceLock::new() }; 3];
    SERVERS[kind as usize].get_or_init(|| Server::start_as(kind, &[]))
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// Redis 7, which keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::start_as(Kind::Redis7, &[])
    }

    /// A server with more settings, which win over the usual ones.
    pub(crate) fn start_as(kind: Kind, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        Self::launch(kind, settings, None)
    }

    /// Redis 7 over TLS, which asks for the client's certificate.
    pub(crate) fn start_tls(settings: &[&str]) -> Self {
        let certificates = Certificates::new();
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        Self::launch(Kind::Redis7, settings, Some(certificates))
    }

    /// A server whose clock is off by so much, such as `+1h` or `-90s`. Not Debian's Redis: its
    /// allocator and libfaketime call each other for ever.
    pub(crate) fn start_skewed(kind: Kind, offset: &str) -> Self {
        Self::launch_in(kind, Vec::new(), None, skew(offset).into())
    }

    fn launch(kind: Kind, settings: Vec<String>, tls: Option<Certificates>) -> Self {
        Self::launch_in(kind, settings, tls, Vec::new())
    }

    fn launch_in(
        kind: Kind,
        settings: Vec<String>,
        tls: Option<Certificates>,
        env: Vec<(&'static str, String)>,
    ) -> Self {
        let dir = scratch("redis");
        std::fs::create_dir_all(&dir).expect("a folder for the server");
        if let Some(tls) = &tls {
            tls.write(&dir);
        }
        let mut server = Self { kind, env, port: 0, dir, arguments: settings, tls, running: None };
        // Between looking for a free port and its use another process may take it.
        let started = (0..20).any(|_| {
            server.port = free_port();
            server.spawn()
        });
        assert!(started, "no free port for a server of kind {kind:?}");
        server
    }

    /// Starts the process; false if its port is taken.
    fn spawn(&mut self) -> bool {
        let port = self.port.to_string();
        let dir = self.dir.to_str().expect("a path of text");
        let mut arguments = vec!["--bind", "127.0.0.1", "--dir", dir, "--save", ""];
        if self.tls.is_some() {
            arguments.extend(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "yes"]);
            arguments.extend(["--tls-ca-cert-file", "ca.pem", "--tls-cert-file", "server.pem"]);
            arguments.extend(["--tls-key-file", "server.key"]);
        } else {
            arguments.extend(["--port", &port]);
        }
        arguments.extend(self.arguments.iter().map(String::as_str));
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(self.kind.binary())
            .args(arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let input = keeper.stdin.take();
        let lines = BufReader::new(keeper.stdout.take().expect("it is a pipe")).lines();
        let (told, news) = mpsc::sync_channel(2);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(pid) = line.strip_prefix("pid ") {
                    told.try_send(pid.trim().parse::<u32>().ok()).ok();
                } else if line.contains("Ready to accept connections") {
                    told.try_send(Some(0)).ok();
                } else if line.contains("Address already in use") {
                    told.try_send(None).ok();
                }
            }
        });
        let pid = news.recv_timeout(START).expect("the shell speaks").expect("a process id");
        self.running = Some(Running { pid, keeper, input });
        let ready = news.recv_timeout(START);
        assert!(ready.is_ok(), "the server of kind {:?} does not start", self.kind);
        if ready == Ok(None) {
            self.running = None;
        }
        self.running.is_some()
    }

    /// Its URL for a node.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What a client of it needs, where it speaks TLS.
    pub(crate) fn certificates(&self) -> &Certificates {
        self.tls.as_ref().expect("a server that speaks TLS")
    }

    /// A connection of the test's own, past everything that is tested.
    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("a good URL");
        client.get_connection().expect("the server is up")
    }

    /// The answer to one command, past everything that is tested.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let (name, arguments) = words.split_first().expect("a command");
        let mut command = redis::cmd(name);
        command.arg(arguments);
        command.query(&mut self.connect()).expect("the server answers")
    }

    /// Redis time in ms.
    pub(crate) fn now_ms(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]);
        seconds * 1000 + micros / 1000
    }

    /// All keys that begin with a prefix.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.connect().keys(format!("{prefix}:*")).expect("keys");
        keys.sort();
        keys
    }

    /// Stops it as a machine that hangs.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again on its port, with the data it saved, if any.
    pub(crate) fn restart(&mut self) {
        self.running = None;
        assert!(self.spawn(), "port {} was taken in between", self.port);
    }

    fn signal(&self, name: &str) {
        let pid = self.running.as_ref().expect("it runs").pid;
        let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} reaches the server");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The keeper kills the server as soon as its input ends, stopped or not.
        drop(self.input.take());
        self.keeper.wait().ok();
    }
}

fn free_port() -> u16 {
    // The second port of a cluster's node is 10,000 above.
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if port < 55_000 {
            return port;
        }
    }
}

/// Three masters that share the slots.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    /// Starts them and waits until each serves.
    pub(crate) async fn start() -> Self {
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
            "--cluster-node-timeout",
            "2000",
        ];
        let servers: Vec<_> = (0..3).map(|_| Server::start_as(Kind::Redis7, &settings)).collect();
        for (server, slots) in
            servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            let () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        }
        for other in servers.iter().skip(1) {
            let () = servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
        }
        let serves = |server: &Server| {
            let info: String = server.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        super::eventually::eventually(START, || servers.iter().all(serves)).await;
        Self(servers)
    }

    /// Its URL for a node.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> =
            self.0.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }
}

impl Certificates {
    fn new() -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        // A leaf of its issuer's own name would look self-signed to the server.
        ca.distinguished_name.push(DnType::CommonName, "ca of this test");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
        let issuer = Issuer::new(ca, ca_key);
        let signed = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let leaf = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
            let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
            (leaf.pem(), key.serialize_pem())
        };
        let (client, server) = (signed("client"), signed("127.0.0.1"));
        Self { ca: ca_certificate.pem(), client, server }
    }

    fn write(&self, dir: &Path) {
        let Self { ca, server: (certificate, key), .. } = self;
        for (name, text) in [("ca.pem", ca), ("server.pem", certificate), ("server.key", key)] {
            std::fs::write(dir.join(name), text).expect("a file of the server's");
        }
    }
}
