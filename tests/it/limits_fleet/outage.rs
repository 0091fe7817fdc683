//! Redis stalls, loses packets, is slow, dies, refuses connections: users do not notice, and nothing
//! is counted twice.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::rig::Rig;
use crate::judge::history::End;
use crate::support::chaos::ChaosProxy;
use crate::support::crowd::{Crowd, Wish};
use crate::support::process::spawn_fleet;
use crate::support::redis::{Kind, Server};

/// How long each trouble lasts.
const TROUBLE: Duration = Duration::from_millis(1500);
/// Until everything is as before.
const RECOVERY: Duration = Duration::from_secs(5);
/// What no request may wait, once the breaker is open. The promise is 100 ms; a test that shares two
/// cores with all others says only that nobody waits for Redis.
const QUICK: Duration = Duration::from_millis(600);

const LIMITS: &str = r#"tenants: { a: {}, b: {} }
keys:
  - { name: a, tenant: a, key: "sk-a" }
  - { name: b, tenant: b, key: "sk-b" }
limits:
  - { name: shared, scope: { tenant: a }, metric: requests, limit: 1000000, window: 1h }
  - { name: tokens, scope: { tenant: a }, metric: tokens, limit: 1000000000, window: 1h, degraded: fail_open }
  - { name: exact, scope: { tenant: b }, metric: requests, limit: 1000000, window: 1h, degraded: fail_closed }
"#;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Pause,
    Drop,
    Delay,
    Kill,
    Crowded,
}

// T8
#[tokio::test]
async fn users_do_not_notice_what_happens_to_redis() {
    let crowd = Crowd::new();
    let server = Server::start_as(Kind::Redis7, &["--appendonly", "yes", "--appendfsync", "no"]);
    let proxy = ChaosProxy::start(([127, 0, 0, 1], server.port).into());
    let url = format!("redis://{}", proxy.addr());
    let env = [("FLOTILLA_REDIS_URL", url.as_str()), ("FLOTILLA_WORKERS", "1")];
    let fleet = spawn_fleet(0, 2, &super::rig::document(&crowd, LIMITS), &env);
    crowd.meets(&fleet.addresses());
    let mut rig = Rig { crowd, fleet, server };
    rig.works(RECOVERY).await;
    let memory = |rig: &Rig| -> u64 {
        rig.fleet.processes.iter().map(|process| process.memory("VmRSS")).sum()
    };
    let before = memory(&rig);

    for trouble in [Trouble::Pause, Trouble::Drop, Trouble::Delay, Trouble::Kill, Trouble::Crowded]
    {
        let mut admin = rig.server.connect();
        let config = |admin: &mut redis::Connection, most: &str| {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg("maxclients").arg(most).exec(admin).expect("it is set");
        };
        match trouble {
            Trouble::Pause => rig.server.pause(),
            Trouble::Drop => proxy.half_open(),
            Trouble::Delay => proxy.delay(Duration::from_millis(200)),
            Trouble::Kill => rig.server.kill(),
            Trouble::Crowded => {
                config(&mut admin, "1");
                let mut command = redis::cmd("CLIENT");
                command.arg("KILL").arg("TYPE").arg("normal");
                command.exec(&mut admin).expect("they are gone");
            }
        }
        let slowest = rig.load(TROUBLE).await;
        assert!(slowest < QUICK, "{trouble:?}: a request took {slowest:?}");
        match trouble {
            Trouble::Pause => rig.server.resume(),
            Trouble::Drop => {
                // What was swallowed never comes: those connections are dead.
                proxy.pass();
                proxy.cut();
            }
            Trouble::Delay => proxy.pass(),
            Trouble::Kill => rig.server.restart(),
            Trouble::Crowded => config(&mut admin, "10000"),
        }
        rig.works(RECOVERY).await;
    }

    let grown = memory(&rig).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    let history = rig.crowd.history();
    let failed: Vec<_> = (history.asks.iter())
        .filter(|ask| ask.who == "sk-a")
        .filter(|ask| !matches!(ask.end, End::Answered { status: 200, whole: true, .. }))
        .map(ToString::to_string)
        .collect();
    assert!(failed.is_empty(), "users noticed: {failed:#?}");

    // Nothing twice, nothing lost: Redis kept its data, and no node died.
    rig.rests().await;
    let served = history.asks.iter().filter(|ask| ask.who == "sk-a").count() as u64;
    let row = rig.recorded().get("a p").copied().unwrap_or_default();
    assert_eq!((row.attempts, row.node_lost), (served, 0), "{row:?}");
    assert_eq!((row.usage.input, row.usage.output), (10 * served, 10 * served));
}

impl Rig {
    /// Asks both nodes for so long; how long the slowest request took, those not counted that were
    /// under way while the breakers had to learn, nor the time that the machine stood still.
    async fn load(&self, time: Duration) -> Duration {
        let begun = Instant::now();
        let (slowest, stalled) = (Cell::new(Duration::ZERO), Cell::new(Duration::ZERO));
        let client = async |number: usize| {
            while begun.elapsed() < time {
                let sent = Instant::now();
                self.crowd.ask(number % 2, Wish::of("sk-a")).await;
                if sent.duration_since(begun) > Duration::from_millis(400) {
                    slowest.set(slowest.get().max(sent.elapsed()));
                }
            }
        };
        let pulse = async {
            const BEAT: Duration = Duration::from_millis(20);
            while begun.elapsed() < time {
                let beat = Instant::now();
                tokio::time::sleep(BEAT).await;
                stalled.set(stalled.get().max(beat.elapsed().saturating_sub(BEAT)));
            }
        };
        tokio::join!(join_all((0..4).map(client)), pulse);
        slowest.get().saturating_sub(stalled.get() * 2)
    }

    /// Waits until both nodes reach Redis: a limit that is closed without it lets requests through.
    async fn works(&self, within: Duration) {
        let begun = Instant::now();
        for node in [0, 1] {
            loop {
                let answer = self.crowd.ask(node, Wish::of("sk-b")).await.expect("an answer");
                if answer.head.status == 200 {
                    break;
                }
                assert_eq!(answer.code(), "store_unavailable");
                assert!(begun.elapsed() < within, "node {node} is not back after {within:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

const TEN: &str = r#"tenants: { a: {} }
keys: [{ name: a, tenant: a, key: "sk-a" }]
limits: [{ name: ten, scope: { tenant: a }, metric: requests, limit: 10, window: 1h, degraded: fail_closed }]
"#;

// T8
#[tokio::test]
async fn a_command_whose_answer_came_too_late_is_not_charged_again_when_it_is_resent() {
    let (crowd, server) = (Crowd::new(), Server::start());
    let proxy = ChaosProxy::start(([127, 0, 0, 1], server.port).into());
    let url = format!("redis://{}", proxy.addr());
    let env = [
        ("FLOTILLA_REDIS_URL", url.as_str()),
        ("FLOTILLA_REDIS_DEADLINE", "250ms"),
        ("FLOTILLA_WORKERS", "1"),
    ];
    let document = super::rig::document(&crowd, TEN);
    let far = spawn_fleet(1, 0, &document, &env);
    let url = server.url();
    let near = spawn_fleet(
        1,
        0,
        &document,
        &[&[("FLOTILLA_REDIS_URL", url.as_str())], &env[1..]].concat(),
    );
    crowd.meets(&[far.addresses(), near.addresses()].concat());
    for node in [0, 1] {
        let served = crowd.ask(node, Wish::of("sk-a")).await.expect("an answer");
        assert_eq!(served.head.status, 200);
    }

    // There in time, and back too late; its second copy is there when the first one's time is over.
    proxy.delay(Duration::from_millis(200));
    // Meanwhile the other node's request sweeps out what is known of commands that are over.
    let asked = 4;
    let (_, answer) = tokio::join!(crowd.ask(0, Wish::of("sk-a")), async {
        tokio::time::sleep(Duration::from_millis(350)).await;
        crowd.ask(1, Wish::of("sk-a")).await.expect("an answer")
    });
    assert_eq!(answer.head.status, 200);
    proxy.pass();
    let mut left = 0;
    let begun = Instant::now();
    loop {
        let answer = crowd.ask(0, Wish::of("sk-a")).await.expect("an answer");
        match answer.code().as_str() {
            "" => left += 1,
            "rate_limited" => break,
            code => assert_eq!(code, "store_unavailable"),
        }
        assert!(begun.elapsed() < RECOVERY, "{left} served, and no end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked + left >= 10, "{asked} were asked for, and only {left} of ten were left");
}
