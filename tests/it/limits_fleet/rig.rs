//! A fleet with a Redis of its own, clients, and what is read past all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::judge::check::{Report, check};
use crate::judge::history::{
    Algorithm, Ending, History, Limit, Metric, Patience, Recorded, SECOND,
};
use crate::support::crowd::Crowd;
use crate::support::eventually::eventually;
use crate::support::process::{Fleet, spawn_fleet};
use crate::support::recorded;
use crate::support::redis::Server;

/// How long a lease lives in tests that wait for the end of one.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// What nodes are given in those tests.
pub(super) const SHORT_LEASES: [(&str, &str); 2] =
    [("FLOTILLA_LEASE_TTL", "2s"), ("FLOTILLA_REDIS_DEADLINE", "500ms")];

/// What every node of these tests is given: exactness does not depend on how fast Redis is.
const USUAL: [(&str, &str); 6] = [
    ("FLOTILLA_WORKERS", "1"),
    // Thousands come at once, and two cores read them.
    ("FLOTILLA_HEAD_TIMEOUT", "60s"),
    ("FLOTILLA_REDIS_DEADLINE", "5s"),
    ("FLOTILLA_LEASE_TTL", "20s"),
    ("FLOTILLA_NODE_TTL", "1s"),
    ("FLOTILLA_TICK", "100ms"),
];

/// Everything a test needs.
pub(super) struct Rig {
    pub(super) crowd: Crowd,
    pub(super) fleet: Fleet,
    pub(super) server: Server,
}

impl Rig {
    /// So many nodes in this process and as processes; `rest` is the document's keys and limits.
    pub(super) fn start(nodes: usize, processes: usize, rest: &str) -> Self {
        Self::start_with(nodes, processes, rest, &[], Server::start())
    }

    /// As `start`, with more settings and this Redis.
    pub(super) fn start_with(
        nodes: usize,
        processes: usize,
        rest: &str,
        env: &[(&str, &str)],
        server: Server,
    ) -> Self {
        let url = server.url();
        let own = [("FLOTILLA_REDIS_URL", url.as_str())];
        let env: Vec<_> = USUAL.iter().chain(&own).chain(env).copied().collect();
        let crowd = Crowd::new();
        let fleet = spawn_fleet(nodes, processes, &document(&crowd, rest), &env);
        crowd.meets(&fleet.addresses());
        Self { crowd, fleet, server }
    }

    /// Permits that somebody holds, as Redis has them.
    pub(super) fn permits(&self) -> u64 {
        recorded::permits(&self.server)
    }

    /// Attempts that are not settled, as Redis has them.
    pub(super) fn members(&self) -> u64 {
        recorded::members(&self.server)
    }

    /// The keys with this noun.
    pub(super) fn keys(&self, noun: &str) -> Vec<String> {
        recorded::keys(&self.server, noun)
    }

    /// Usage as it is recorded, by key and model.
    pub(super) fn recorded(&self) -> BTreeMap<String, Recorded> {
        recorded::usage(&self.server)
    }

    /// Waits until nothing is held, and everything is settled and recorded.
    pub(super) async fn rests(&self) {
        eventually(Duration::from_secs(25), || self.permits() == 0 && self.members() == 0).await;
        let mut last = None;
        let mut since = std::time::Instant::now();
        eventually(Duration::from_secs(10), || {
            let recorded = Some(self.recorded());
            if recorded != last {
                (last, since) = (recorded, std::time::Instant::now());
            }
            since.elapsed() > Duration::from_millis(700)
        })
        .await;
    }

    /// Everything that was seen, up to an end at which all permits are given back and all usage is
    /// recorded.
    pub(super) async fn history(&self, limits: Vec<Limit>) -> History {
        self.rests().await;
        let from = self.crowd.now();
        let permits = self.permits();
        let of_permits = limits.iter().filter(|limit| limit.algorithm == Algorithm::Permits);
        let standings = of_permits.map(|limit| (limit.name.clone(), permits)).collect();
        let rows = Some(self.recorded());
        let ending = Some(Ending { from, until: self.crowd.now(), standings, rows });
        let lease = u64::try_from(LEASE.as_micros()).expect("a short time");
        let patience = Patience { lease, ..Patience::default() };
        History { limits, ending, patience, ..self.crowd.history() }
    }

    /// Judges everything that was seen.
    pub(super) async fn judged(&self, limits: Vec<Limit>) -> Report {
        let history = self.history(limits).await;
        let report = check(&history);
        report.assert_good(&history);
        report
    }

    /// The admin listeners.
    pub(super) fn admins(&self) -> Vec<SocketAddr> {
        let nodes = self.fleet.nodes.iter().map(|node| node.admin);
        nodes.chain(self.fleet.processes.iter().map(|process| process.admin)).collect()
    }
}

/// A document whose pool `p` is the wall; `rest` is its tenants, keys and limits.
pub(super) fn document(crowd: &Crowd, rest: &str) -> String {
    format!(
        "providers: {{ w: {{ protocol: openai, base_url: \"{}\", api_key: sk-wall }} }}
targets: {{ t: {{ provider: w, price: {{ input: 1, output: 2 }} }} }}
pools: {{ p: {{ tiers: [[t]], retry: {{ attempts: 1 }} }} }}
{rest}",
        crowd.wall.base_url()
    )
}

/// A sliding window of these keys, as the judge sees it.
pub(super) fn window(name: &str, who: &[&str], metric: Metric, limit: u64, seconds: f64) -> Limit {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a short time")]
    let length = (seconds * SECOND as f64) as u64;
    of(name, who, metric, Algorithm::Window { length, slots: 60 }, limit)
}

/// A limit of these keys, as the judge sees it.
pub(super) fn of(
    name: &str,
    who: &[&str],
    metric: Metric,
    algorithm: Algorithm,
    limit: u64,
) -> Limit {
    let covers = who.iter().map(|who| (*who).to_owned()).collect();
    Limit { name: name.to_owned(), covers, metric, algorithm, limit, bound: 0 }
}
