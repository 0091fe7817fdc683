//! T3: the windows of a fleet whose clocks disagree, against a reference limiter written apart.
//!
//! Nodes five seconds before and behind, and a Redis an hour off. Only Redis's clock may matter, so
//! the reference is asked on that clock: it is read once, and goes on with the test's own.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::rig::{Rig, document, of, window};
use crate::judge::dice::Dice;
use crate::judge::history::{Algorithm, End, Metric, SECOND};
use crate::judge::reference::{Reference, Rule};
use crate::support::crowd::{Crowd, Wish};
use crate::support::eventually::eventually;
use crate::support::node::metric;
use crate::support::process::{Fleet, Process};
use crate::support::redis::{Kind, Server};
use crate::support::wall::DEADLINE;

/// Two windows of 60 slots, and a bucket.
fn limits(first: u64) -> String {
    format!(
        r#"tenants: {{ a: {{}}, b: {{}} }}
keys:
  - {{ name: a, tenant: a, key: "sk-a" }}
  - {{ name: b, tenant: b, key: "sk-b" }}
limits:
  - {{ name: short, scope: {{ tenant: a }}, metric: requests, limit: {first}, window: 1200ms, degraded: fail_closed }}
  - {{ name: long, scope: {{ tenant: a }}, metric: requests, limit: 30, window: 6s, degraded: fail_closed }}
  - {{ name: bucket, scope: {{ tenant: b }}, metric: requests, algorithm: token_bucket, limit: 10, burst: 14,
      window: 1s, degraded: fail_closed }}
"#
    )
}

/// Three nodes whose clocks are off by so many seconds, over a Redis that is off by an hour.
fn skewed(kind: Kind, redis: &str) -> Rig {
    let server = Server::start_skewed(kind, redis);
    let url = server.url();
    let crowd = Crowd::new();
    let path = crate::support::node::scratch("skewed.yaml");
    std::fs::write(&path, document(&crowd, &limits(8))).expect("the document is written");
    let shared = path.display().to_string();
    let start = |offset: &&str| {
        let [preload, by, monotonic] = crate::support::redis::skew(offset);
        let env = [
            ("FLOTILLA_REDIS_URL", url.as_str()),
            ("FLOTILLA_REDIS_DEADLINE", "2s"),
            ("FLOTILLA_CONFIG", &shared),
            ("FLOTILLA_WORKERS", "1"),
            (preload.0, preload.1.as_str()),
            (by.0, by.1.as_str()),
            (monotonic.0, monotonic.1.as_str()),
        ];
        Process::start("", &env)
    };
    let processes = ["-5s", "+0s", "+5s"].iter().map(start).collect();
    let fleet = Fleet { nodes: Vec::new(), processes, document: path };
    crowd.meets(&fleet.addresses());
    Rig { crowd, fleet, server }
}

/// Redis's clock in ms, from the test's.
struct Clock {
    at: Instant,
    ms: (u64, u64),
}

impl Clock {
    fn read(server: &Server) -> Self {
        let before = Instant::now();
        let ms = server.now_ms();
        let took = u64::try_from(before.elapsed().as_millis()).expect("a short time");
        Self { at: before, ms: (ms.saturating_sub(took + 1), ms + 1) }
    }

    /// The earliest and the latest that it can show now.
    fn now(&self) -> (u64, u64) {
        let passed = u64::try_from(self.at.elapsed().as_millis()).expect("a short time");
        (self.ms.0 + passed, self.ms.1 + passed + 1)
    }
}

/// The reference, once as if everything had been taken as early as possible and once as late.
struct Model {
    early: Reference,
    late: Reference,
    determined: usize,
}

impl Model {
    fn new() -> Self {
        let rules = vec![
            Rule::Window { slot: 20, slots: 60, limit: 8 },
            Rule::Window { slot: 100, slots: 60, limit: 30 },
            Rule::Bucket { window: 1000, limit: 10, burst: 14 },
        ];
        Self { early: Reference::new(rules.clone()), late: Reference::new(rules), determined: 0 }
    }

    /// One request was admitted or not at a time between these two.
    fn sees(&mut self, id: u64, from: u64, until: u64, rules: &[usize], admitted: bool) {
        let fits = |model: &Reference, at| {
            rules.iter().all(|rule| model.used(at, *rule) < model.room(*rule))
        };
        let (must, may) = (fits(&self.late, from), fits(&self.early, until));
        if must {
            assert!(admitted, "request {id} at {from}..{until} was refused, and there is room");
        }
        if !may {
            assert!(!admitted, "request {id} at {from}..{until} was admitted over the limit");
        }
        self.determined += usize::from(must || !may);
        if admitted {
            for rule in rules {
                self.early.take(from, id, *rule, 1);
                self.late.take(until, id, *rule, 1);
            }
        }
    }
}

async fn windows_are_those_of_the_reference(kind: Kind, redis: &str, seed: u64) {
    let rig = skewed(kind, redis);
    let clock = Clock::read(&rig.server);
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    let mut asked = 0;
    for limit in [8, 5, 11] {
        if asked > 0 {
            // A changed limit keeps its count.
            let old: Vec<_> = rig.admins().iter().map(|it| revision(*it)).collect();
            let text = document(&rig.crowd, &limits(limit));
            std::fs::write(&rig.fleet.document, text).expect("the document is written");
            let taken = || rig.admins().iter().zip(&old).all(|(it, old)| revision(*it) > *old);
            eventually(DEADLINE, taken).await;
            model.early.set_limit(0, limit);
            model.late.set_limit(0, limit);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            asked += 1;
            let (key, rules): (_, &[usize]) =
                if dice.once_in(2) { ("sk-a", &[0, 1]) } else { ("sk-b", &[2]) };
            let node = usize::try_from(dice.below(3)).expect("a small number");
            let (from, _) = clock.now();
            let answer = rig.crowd.ask(node, Wish::of(key)).await.expect("an answer");
            let (_, until) = clock.now();
            let status = answer.head.status;
            assert!(status == 200 || status == 429, "{status} {}", answer.code());
            model.sees(asked, from, until, rules, status == 200);
            // Crowds, and gaps in which slots leave.
            if dice.once_in(6) {
                tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
            }
        }
    }
    let share = model.determined as f64 / asked as f64;
    assert!(asked > 60 && share > 0.5, "{} of {asked} were determined", model.determined);

    let loaded = rig.crowd.now();
    // Three windows of more than they can take, on all nodes at once.
    let begun = Instant::now();
    let client = |number: usize| {
        let rig = &rig;
        async move {
            while begun.elapsed() < Duration::from_millis(4200) {
                let key = if number.is_multiple_of(2) { "sk-a" } else { "sk-b" };
                rig.crowd.ask(number % 3, Wish { row: "-".into(), ..Wish::of(key) }).await;
            }
        }
    };
    join_all((0..6).map(client)).await;
    let bucket = Algorithm::Bucket { window: SECOND, burst: 14 };
    let judged = vec![
        window("short", &["sk-a"], Metric::Requests, 11, 1.2),
        window("long", &["sk-a"], Metric::Requests, 30, 6.0),
        of("bucket", &["sk-b"], Metric::Requests, bucket, 10),
    ];
    let mut history = rig.history(judged).await;
    history.ending = None;
    // What was refused before was refused by other limits.
    history
        .asks
        .retain(|ask| ask.sent >= loaded || matches!(ask.end, End::Answered { status: 200, .. }));
    let report = crate::judge::check::check(&history);
    report.assert_good(&history);
    // Which of its two limits refused a request of `a` is seldom certain; that both were full is.
    assert!(report.measured.iter().all(|it| it.fullest > 0.9), "{report}");
    assert!(report.measured[1].refusals > 20 && report.measured[2].refusals > 20, "{report}");
}

fn revision(admin: std::net::SocketAddr) -> f64 {
    metric(admin, "flotilla_config_revision")
}

// T3
#[tokio::test]
async fn clocks_of_nodes_do_not_matter_and_redis_may_be_an_hour_ahead() {
    windows_are_those_of_the_reference(Kind::Valkey9, "+1h", 3).await;
}

// T3
#[tokio::test]
async fn redis_may_be_an_hour_behind() {
    windows_are_those_of_the_reference(Kind::Redis6, "-1h", 33).await;
}
