//! Memory of big uploads, measured in a process of its own.

use actix_http::Method;
use flotilla::domain::Payload;
use flotilla::upstream::{Call, Config};

use super::{call, client_of, on_worker};
use crate::support::eventually::eventually;
use crate::support::wall::{DEADLINE, Script, Wall};

const BODY: usize = 64 << 20;
const ATTEMPTS: usize = 4;

// T27, the upstream part: attempts share one body, and none of them copies it whole.
#[test]
fn uploads_share_one_body_in_memory() {
    let test = std::env::current_exe().expect("this binary");
    let child = std::process::Command::new(test)
        .args(["--ignored", "--exact", "upstream::memory::child_that_uploads_a_big_body"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn child_that_uploads_a_big_body() {
    let wall = Wall::start_early(false, |_| Script::new().freeze());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let body = Payload::from(bytes::Bytes::from(vec![b'x'; BODY]));
        let before = peak();
        let uploads = (0..ATTEMPTS).map(|_| {
            let (upstream, origin) = (upstream.clone(), wall.origin());
            let call = Call { body: body.clone(), ..call(Method::POST, "") };
            actix_rt::spawn(async move { upstream.send(&origin, call).await.map(drop) })
        });
        let uploads: Vec<_> = uploads.collect();
        eventually(DEADLINE, || wall.count() == ATTEMPTS).await;
        // Every upload makes progress until the kernel takes no more of it.
        let moment = std::time::Duration::from_millis(300);
        let ended = tokio::time::timeout(moment, futures_util::future::select_all(uploads)).await;
        assert!(ended.is_err(), "an upload that nobody reads ended");
        let grown = peak() - before;
        assert!(grown < BODY / 8, "{grown} bytes beside a body of {BODY}");
    });
}

/// The most memory this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("kB") * 1024
}
