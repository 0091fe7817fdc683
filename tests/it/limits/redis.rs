//! The scripts on a real server.
//!
//! On a clock of the test's where a behaviour needs time to pass: Redis's own cannot be moved.

use std::sync::atomic::Ordering;

use flotilla::policy::limit::{Admit, Verdict};
use flotilla::store::connection::TestClock;
use flotilla::store::redis::Redis;

use super::suite::{LEASE_MS, Rig};
use crate::store::world::{config, shape};
use crate::support::redis::{Kind, prefix, shared};

/// Scripts that are told the time, on a prefix of their own.
struct OnRedis<const KIND: usize> {
    clock: TestClock,
    redis: Redis,
}

const KINDS: [Kind; 3] = [Kind::Redis7, Kind::Redis6, Kind::Valkey9];

impl<const KIND: usize> Rig for OnRedis<KIND> {
    type Commands = Redis;

    async fn fresh() -> Self {
        let clock = TestClock::default();
        clock.0.store(1_800_000_123_456, Ordering::Relaxed);
        let mut shape = shape(&prefix());
        shape.lease_ttl = std::time::Duration::from_millis(LEASE_MS);
        let url = shared(KINDS[KIND]).url();
        let redis = Redis::open_with_clock(&config(&url), &shape, clock.clone());
        Self { clock, redis: redis.expect("a good URL") }
    }

    fn commands(&self) -> &Redis {
        &self.redis
    }

    async fn now(&self) -> u64 {
        self.clock.0.load(Ordering::Relaxed)
    }

    async fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    async fn admit_by(&self, admit: &Admit, deadline_ms: u64) -> Verdict {
        self.redis.admit_by(admit, deadline_ms).await.expect("redis answers")
    }
}

mod redis_7 {
    crate::limits::behaviours!(super::OnRedis<0>);
}

mod redis_6 {
    crate::limits::behaviours!(super::OnRedis<1>);
}

mod valkey_9 {
    crate::limits::behaviours!(super::OnRedis<2>);
}
