//! The admin listener.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use actix_server::ServerHandle;
use flotilla::api::{self, AdminConfig};
use flotilla::domain::{Lifecycle, Phase, Secret};
use flotilla::proxy::{Config, Shared};
use flotilla::snapshot::{Key, Snapshot, Tenant};
use flotilla::telemetry::Metrics;

use super::rig::{Client, PATIENCE};

/// The clocks.
const SHORT: Duration = Duration::from_millis(300);

struct Admin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

impl Admin {
    fn start(token: Option<&str>) -> Self {
        let tenant = Arc::new(Tenant {
            name: "default".into(),
            tag: "t:default".into(),
            providers: None,
            regions: None,
            tier: None,
            budget: None,
        });
        let anonymous = Key {
            name: "anonymous".into(),
            tenant,
            models: None,
            upstream_models: None,
            expires: None,
            budget: None,
            limits: Vec::new(),
            places: std::sync::OnceLock::new(),
        };
        let snapshot = Snapshot {
            revision: 7,
            checksum: "0123456789abcdef".into(),
            providers: Vec::new(),
            targets: Vec::new(),
            pools: Vec::new(),
            routes: Vec::new(),
            keys: HashMap::default(),
            keys_required: false,
            anonymous: Arc::new(anonymous),
            limits: Vec::new(),
        };
        let lifecycle = Arc::new(Lifecycle::new());
        lifecycle.advance(Phase::Serving);
        let metrics = Metrics::new();
        metrics.revision(7);
        let config = Config {
            body_limit: 1 << 20,
            body_budget: 1 << 20,
            body_stall: Duration::from_secs(1),
        };
        let shared = Shared::new(config, Arc::new(snapshot), metrics, lifecycle, "n1".into());
        let shared = Arc::new(shared);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let config = AdminConfig {
            token: token.map(|token| Secret::new(token.into())),
            head_timeout: SHORT,
            write_stall: SHORT,
        };
        let (ready_in, ready) = mpsc::sync_channel(1024);
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let server = api::serve_admin(config, listener, theirs).expect("a listener");
                ready_in.send(server.handle()).expect("the test waits for it");
                server.await.expect("the server ends cleanly");
            });
        });
        let handle = ready.recv_timeout(PATIENCE).expect("the server starts");
        Self { addr, shared, handle }
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).expect("it listens"))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

#[test]
fn health_tells_what_is_served_and_how_old_it_is() {
    let admin = Admin::start(None);
    let mut client = admin.connect();
    let health: serde_json::Value =
        serde_json::from_str(&client.get("/healthz", "").body).expect("JSON");
    assert_eq!(health["phase"], "serving");
    assert_eq!(health["revision"], 7);
    assert_eq!(health["checksum"], "0123456789abcdef");
    assert_eq!(health["revision_age_seconds"], 0);
    assert!(health["providers"].is_object());
    assert_eq!(client.get("/livez", "").status, 200);
    assert_eq!(client.get("/readyz", "").body, "ready\n");

    admin.shared.lifecycle.advance(Phase::Draining);
    assert_eq!(client.get("/readyz", "").status, 503);
    assert_eq!(client.get("/healthz", "").status, 503);
    assert_eq!(client.get("/livez", "").status, 200);
}

#[test]
fn metrics_are_open_and_count_what_is_in_flight() {
    let admin = Admin::start(Some("secret"));
    let _one = admin.shared.lifecycle.enter();
    let answer = admin.connect().get("/metrics", "");
    assert_eq!(answer.header("content-type"), Some(Metrics::CONTENT_TYPE));
    assert!(answer.body.contains("flotilla_requests_in_flight 1"), "{}", answer.body);
    assert!(answer.body.contains("flotilla_config_revision 7"), "{}", answer.body);
}

// T31f, the admin part.
#[test]
fn the_api_is_off_without_a_token_and_closed_without_the_right_one() {
    let off = Admin::start(None);
    for path in ["/admin/v1", "/admin/v1/keys", "/admin/v1/nodes/n1/drain"] {
        let answer = off.connect().get(path, "authorization: Bearer x\r\n");
        assert_eq!((answer.status, answer.code().as_str()), (403, "admin_disabled"), "{path}");
    }
    let on = Admin::start(Some("secret"));
    let mut client = on.connect();
    for header in [
        "",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "authorization: secret\r\n",
        "authorization: Bearer Secret\r\n",
        "authorization: Bearer secret2\r\n",
        "authorization: Basic secret\r\n",
        "x-api-key: secret\r\n",
        "authorization: Bearer secret\r\nauthorization: Bearer secret\r\n",
    ] {
        let answer = client.get("/admin/v1/keys", header);
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"), "{header}");
        assert!(!answer.body.contains("secret"), "{}", answer.body);
    }
    let answer = client.get("/admin/v1/keys", "authorization: Bearer secret\r\n");
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
}

#[test]
fn a_foreign_host_is_refused_while_there_is_no_token() {
    let off = Admin::start(None);
    let mut client = off.connect();
    client.send("GET /metrics HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_host"));
    assert!(answer.body.contains("FLOTILLA_ADMIN_TOKEN"), "{}", answer.body);
    let on = Admin::start(Some("secret"));
    let mut client = on.connect();
    client.send("GET /metrics HTTP/1.1\r\nhost: metrics.example\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn unknown_paths_and_wrong_methods_are_refused() {
    let admin = Admin::start(None);
    let mut client = admin.connect();
    assert_eq!(client.get("/", "").code(), "not_found");
    client.send("POST /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

// Whoever holds all connections keeps out the probes that decide whether the node lives.
#[test]
fn nobody_holds_a_connection_with_what_drips() {
    let admin = Admin::start(None);
    for (name, start, drip) in [
        ("a first head", "GET /livez HTTP/1.1\r\nx: ", "x"),
        ("a second head", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET", "x"),
        (
            "a body",
            "POST /livez HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
            "1\r\nx\r\n",
        ),
    ] {
        let mut client = admin.connect();
        client.send(start);
        client.socket.set_read_timeout(Some(SHORT / 10)).expect("a socket");
        let begun = Instant::now();
        let mut piece = [0; 1024];
        while !matches!(std::io::Read::read(&mut client.socket, &mut piece), Ok(0))
            && std::io::Write::write_all(&mut client.socket, drip.as_bytes()).is_ok()
        {
            assert!(begun.elapsed() < PATIENCE, "{name} is still open");
        }
        assert!(begun.elapsed() >= SHORT / 2, "{name}");
    }
}

#[test]
fn a_scraper_that_reads_nothing_is_let_go() {
    let admin = Admin::start(None);
    let mut client = admin.connect();
    // Until nothing more is taken: the answers fill the kernel's buffers.
    client.socket.set_write_timeout(Some(SHORT * 10)).expect("a socket");
    let ask = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let begun = Instant::now();
    loop {
        match std::io::Write::write_all(&mut client.socket, ask.as_bytes()) {
            Ok(()) => assert!(begun.elapsed() < PATIENCE * 3, "it still takes requests"),
            Err(error) => {
                let kind = error.kind();
                let closed = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
                assert!(closed.contains(&kind), "not closed: {kind:?}");
                break;
            }
        }
    }
}
