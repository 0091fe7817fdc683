//! Nodes for tests: in this process, each on threads of its own, every port chosen by the system.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use flotilla::app;
use flotilla::config::{Env, Settings};
use flotilla::store::schema::{MIGRATIONS, Migration};
use tokio::sync::oneshot;

/// A node that serves until it is dropped.
pub(crate) struct Node {
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The document that the node watches.
    pub(crate) document: PathBuf,
    stop: Option<oneshot::Sender<Stop>>,
    thread: Option<JoinHandle<()>>,
}

enum Stop {
    Drain,
    Kill,
}

/// A path of its own for each caller, below the folder that cargo gives to tests.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("it-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for tests");
    folder.join(format!("{count}-{name}"))
}

impl Node {
    /// A node as a newcomer starts it: no document, no provider, the simulator behind it.
    pub(crate) fn first_run() -> Self {
        Self::with("", &[])
    }

    /// A node that serves this document; an empty one is no document.
    pub(crate) fn serving(document: &str) -> Self {
        Self::with(document, &[])
    }

    /// A node with this document, and these settings and variables in its environment.
    pub(crate) fn with(document: &str, env: &[(&str, &str)]) -> Self {
        Self::of_build(document, env, MIGRATIONS)
    }

    /// The same of a build that knows these migrations.
    pub(crate) fn of_build(
        document: &str,
        env: &[(&str, &str)],
        migrations: &'static [Migration],
    ) -> Self {
        let path = scratch("fleet.yaml");
        let mut variables = vec![
            ("FLOTILLA_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("FLOTILLA_ADMIN_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("FLOTILLA_SIM_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("FLOTILLA_WORKERS".to_owned(), "2".to_owned()),
            ("FLOTILLA_LAME_DUCK".to_owned(), "0s".to_owned()),
        ];
        if !document.is_empty() {
            std::fs::write(&path, document).expect("the document is written");
            variables.push(("FLOTILLA_CONFIG".to_owned(), path.display().to_string()));
        }
        let named = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.extend(named);
        let env: Env = variables.into_iter().collect();
        let (started, addresses) = mpsc::sync_channel(1024);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let (settings, _) = Settings::load(&env).expect("the settings of a test are valid");
                let node =
                    app::Node::start_as(&settings, &env, migrations).expect("the node starts");
                started.send((node.data, node.admin)).expect("the test waits for its node");
                if let Ok(Stop::Drain) = stopped.await {
                    node.drain(settings.lame_duck).await;
                } else {
                    node.kill().await;
                }
            });
        });
        let (data, admin) =
            addresses.recv_timeout(Duration::from_secs(30)).expect("the node starts in time");
        Self { data, admin, document: path, stop: Some(stop), thread: Some(thread) }
    }

    /// Begins a drain; the node is gone when it is over.
    pub(crate) fn drain(&mut self) {
        if let Some(stop) = self.stop.take() {
            drop(stop.send(Stop::Drain));
        }
    }

    /// Waits until the node is gone.
    pub(crate) fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the node did not panic");
        }
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        metrics(self.admin)
    }

    /// The sum of all series whose name and labels begin with `start`.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        metric(self.admin, start)
    }
}

/// The text of `/metrics` of the node with this admin listener.
pub(crate) fn metrics(admin: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(admin).expect("the admin listener");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request).expect("the request is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the answer is text");
    answer
}

/// The sum of all series whose name and labels begin with `start`, of the node with this admin
/// listener.
pub(crate) fn metric(admin: SocketAddr, start: &str) -> f64 {
    let metrics = metrics(admin);
    let series = metrics.lines().filter(|line| line.starts_with(start));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            drop(stop.send(Stop::Kill));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
