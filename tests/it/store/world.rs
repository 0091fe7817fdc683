//! What the tests of the store say again and again: a store on a server, and the words of limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla::domain::{AttemptId, RequestId, Secret};
use flotilla::policy::limit::{
    Admit, Algorithm, Applied, Batch, Charge, Degraded, Holder, LimitId, Metric, Rule, Settle,
    Verdict,
};
use flotilla::store::connection::{Config, TestClock, Tls};
use flotilla::store::redis::{Redis, Shape};

use crate::support::redis::{Server, prefix};

/// A moment that the tests begin at, in the middle of a day.
pub(super) const START: u64 = 1_800_000_000_000 + 12 * 3_600_000;
pub(super) const TAG: &str = "t:acme";
pub(super) const LEASE: u64 = 10_000;

/// A store with a clock of the test's.
pub(super) struct World {
    pub(super) redis: Redis,
    pub(super) prefix: String,
    clock: TestClock,
}

impl World {
    pub(super) fn on(server: &Server) -> Self {
        let (clock, prefix) = (TestClock::default(), prefix());
        clock.0.store(START, Ordering::Relaxed);
        let redis = Redis::open_with_clock(&config(&server.url()), &shape(&prefix), clock.clone());
        Self { redis: redis.expect("a good URL"), prefix, clock }
    }

    /// So many milliseconds after the start.
    pub(super) fn at(&self, ms: u64) {
        self.clock.0.store(START + ms, Ordering::Relaxed);
    }

    /// One truth in a batch of its own.
    pub(super) async fn apply(&self, number: u64, settle: Settle) -> Applied {
        let settles = vec![settle];
        let batch = Batch { tag: TAG.into(), incarnation: 1, number, settles, usage: Vec::new() };
        self.redis.apply(&batch).await.expect("redis answers")
    }

    /// How a limit of the tenant stands.
    pub(super) async fn used(&self, rule: Rule) -> u64 {
        let standing = self.redis.standing(TAG, &[("tenant".into(), rule)]).await;
        standing.expect("redis answers")[0].used
    }

    pub(super) async fn admit(&self, admit: &Admit) -> Verdict {
        self.redis.admit(admit).await.expect("redis answers").verdict
    }
}

pub(crate) fn config(url: &str) -> Config {
    // The machine of a test may be busy; what keeps the deadline is tested apart.
    let deadline = Duration::from_secs(5);
    Config { url: Secret::new(url.to_owned()), tls: Tls::default(), deadline }
}

pub(crate) fn shape(prefix: &str) -> Shape {
    Shape {
        prefix: prefix.to_owned(),
        lease_ttl: Duration::from_millis(LEASE),
        usage_ttl: Duration::from_secs(32 * 86_400),
    }
}

/// Runs a test where connections can be kept.
pub(super) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test)
}

pub(super) fn id() -> AttemptId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    AttemptId { request: RequestId::from_random(count.to_be_bytes()), attempt: 1 }
}

pub(super) fn rule(name: &[u8; 8], algorithm: Algorithm, limit: u64) -> Rule {
    Rule { id: LimitId(*name), algorithm, limit }
}

pub(super) fn charge(scope: u8, rule: Rule, amount: u64) -> Charge {
    Charge {
        scope,
        rule,
        amount,
        holder: Holder::Attempt,
        metric: Metric::Tokens,
        degraded: Degraded::LocalShare,
        hard: false,
    }
}

pub(super) fn window(limit: u64) -> Rule {
    rule(b"window00", Algorithm::Window { slot_ms: 1_000, slots: 60 }, limit)
}

pub(super) fn bucket(limit: u64, burst: u64) -> Rule {
    rule(b"bucket00", Algorithm::Bucket { window_ms: 60_000, burst }, limit)
}

pub(super) fn budget(limit: u64) -> Rule {
    let (start_ms, end_ms) = (START - 3_600_000, START + 3_600_000);
    rule(b"budget00", Algorithm::Budget { start_ms, end_ms }, limit)
}

pub(super) fn permits(limit: u64) -> Rule {
    rule(b"permits0", Algorithm::Permits, limit)
}

/// A member's admission under limits of one scope.
pub(super) fn admit(rules: &[(Rule, u64)]) -> Admit {
    Admit {
        tag: TAG.into(),
        id: id(),
        scopes: vec![Arc::from("tenant")],
        charges: rules.iter().map(|(rule, amount)| charge(0, *rule, *amount)).collect(),
        member: true,
        bill: None,
    }
}

/// Its settlement, with what was really used.
pub(super) fn settle(admit: &Admit, used: &[u64]) -> Settle {
    let mut charges = admit.charges.clone();
    for (charge, used) in charges.iter_mut().zip(used) {
        charge.amount = *used;
    }
    Settle {
        id: admit.id,
        scopes: admit.scopes.clone(),
        charges,
        origin: flotilla::policy::limit::Origin::Member,
    }
}

/// A budget of the hours around a moment.
pub(super) fn budget_now(limit: u64, now_ms: u64) -> Rule {
    let (start_ms, end_ms) = (now_ms - 3_600_000, now_ms + 3_600_000);
    rule(b"budget01", Algorithm::Budget { start_ms, end_ms }, limit)
}
