//! Being one of a fleet: joining, ticking, sweeping, leaving. One task for each node, on a thread of
//! its own, so that a busy worker makes no node look lost.
//!
//! Nothing here is on the way of a request. Without Redis it keeps trying, and what was last known of
//! the fleet stays in force.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::join::join;
use super::sweep::{Sweeper, Times};
use super::vigil::{Alarm, Tick as Seen, Vigil};
use crate::domain::Random;
use crate::store::connection;
use crate::store::description::Description;
use crate::store::membership::Membership;
use crate::store::migrate::answers;
use crate::store::redis::{Fleet, Lost, Redis, Tick};
use crate::store::schema::{self, Migration};
use crate::telemetry::FleetMetrics;

pub use super::join::Joined;

/// Tags that one tick lists, and takes off the list, at most.
const TAGS: usize = 256;
/// Up to so many nodes every tick asks for the rank.
const CHEAP_RANK: u32 = 16;
/// The longest wait before Redis is asked again for the shape of its keys.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often keys that are too new are complained about.
const COMPLAINT: Duration = Duration::from_secs(60);
/// The longest that saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// Redis, for calls that are not on the way of a request.
    pub connection: connection::Config,
    /// Starts every key.
    pub prefix: String,
    /// What this build knows of the keys' shape.
    pub migrations: &'static [Migration],
    /// The interval of heartbeats.
    pub tick: Duration,
    /// How long leases live.
    pub lease_ttl: Duration,
}

/// Ends a member: by leaving, or at once.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// Whatever it does, it ends.
    pub end: CancellationToken,
    /// Before that, it takes itself off the registry. Only for a node whose leases are all given
    /// back: the others are swept after when they count as lost.
    pub goodbye: CancellationToken,
}

/// What the sweeper has to know of the last tick.
#[derive(Clone, Debug)]
struct View {
    lost: Vec<Lost>,
    live: u32,
    now_ms: u64,
    at: Instant,
}

struct Member<'a, D> {
    config: &'a Config,
    redis: &'a Redis,
    membership: &'a Membership,
    describe: D,
    metrics: &'a FleetMetrics,
    random: Random,
    ticks: Cell<u32>,
}

/// Takes part until `leave` says otherwise. `describe` says what this node is now; `joined` is told
/// at first, and whenever it changes, whether the keys fit.
///
/// # Cancellation
/// Dropped, the node is lost to its fleet after its TTL.
pub async fn run(
    config: &Config,
    redis: &Redis,
    membership: &Membership,
    metrics: &FleetMetrics,
    describe: impl Fn() -> Description,
    mut joined: impl FnMut(Joined),
    leave: &Leave,
) {
    let random = Random::new();
    let ticks = Cell::new(0);
    let member = Member { config, redis, membership, describe, metrics, random, ticks };
    let work = async {
        loop {
            member.until_it_fits(&mut joined).await;
            member.take_part().await;
        }
    };
    tokio::select! {
        () = leave.end.cancelled() => return,
        () = work => return,
        () = leave.goodbye.cancelled() => {}
    }
    let goodbye = timeout(GOODBYE, redis.leave(membership.incarnation())).await;
    if !matches!(goodbye, Ok(Ok(()))) {
        tracing::warn!("redis does not answer: this node stays listed until it counts as lost");
    }
}

impl<D: Fn() -> Description> Member<'_, D> {
    /// Asks for the shape of the keys until it is one that this build knows.
    async fn until_it_fits(&self, joined: &mut impl FnMut(Joined)) {
        let Config { tick, .. } = self.config;
        let mut complained: Option<Instant> = None;
        let mut wait = *tick;
        loop {
            let outcome = self.one_join(joined).await;
            match &outcome {
                Joined::Answers | Joined::Away => {}
                Joined::Fits => {
                    self.membership.set_may_touch(true);
                    joined(outcome);
                    return;
                }
                Joined::TooNew(too_new) => {
                    self.membership.set_may_touch(false);
                    self.metrics.schema(too_new.found, false);
                    // Not one that anybody has to wait for.
                    drop(self.redis.leave(self.membership.incarnation()).await);
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
                        complained = Some(Instant::now());
                        tracing::error!("{too_new}; until then this node does not use Redis");
                    }
                }
            }
            joined(outcome);
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT.max(*tick));
        }
    }

    /// Listed first, asked then: who takes something away from the keys looks for nodes that would
    /// miss it.
    async fn one_join(&self, joined: &mut impl FnMut(Joined)) -> Joined {
        let Config { connection, prefix, migrations, .. } = self.config;
        if !answers(connection).await {
            return Joined::Away;
        }
        joined(Joined::Answers);
        match self.one_tick().await {
            Some(_) => join(connection, prefix, migrations).await,
            None => Joined::Away,
        }
    }

    /// Ticks and sweeps until the shape of the keys has to be looked at again.
    async fn take_part(&self) {
        let (seen, view) = watch::channel(None);
        tokio::select! {
            () = self.tick(&seen) => {}
            () = self.sweep(view) => {}
        }
    }

    async fn tick(&self, seen: &watch::Sender<Option<View>>) {
        let Config { tick: every, migrations, .. } = self.config;
        let mut vigil = Vigil::default();
        let mut was_answered = true;
        // Nodes that are started together do not stay together.
        sleep(jittered(*every, self.random.next_u64())).await;
        let mut ticks = interval(*every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sent = Instant::now();
            let answer = self.one_tick().await;
            let received = Instant::now();
            let fleet = match answer {
                Some(fleet) => fleet,
                None => {
                    self.metrics.not_ticked();
                    if was_answered {
                        tracing::warn!(
                            "redis does not answer heartbeats: limits hold by their degraded rules"
                        );
                    }
                    was_answered = false;
                    continue;
                }
            };
            if !was_answered {
                tracing::info!(nodes = fleet.live, "redis answers heartbeats again");
                was_answered = true;
            }
            let Fleet { now_ms, ticks, schema, .. } = fleet;
            self.metrics.ticked(self.membership.live(), self.membership.tags());
            for alarm in vigil.look(Seen { sent, received, now_ms, ticks }) {
                self.alarm(alarm);
            }
            let at = received;
            let live = self.membership.live();
            seen.send_replace(Some(View { lost: fleet.lost, live, now_ms, at }));
            let fits = schema::fits(schema, schema::known(migrations)).is_ok();
            if !fits {
                self.membership.set_may_touch(false);
            }
            self.metrics.schema(schema.map_or(0, |schema| schema.version), fits);
            // Gone with all else, or changed under us.
            if schema.is_none() || !fits {
                return;
            }
        }
    }

    async fn one_tick(&self) -> Option<Fleet> {
        let change = self.membership.change(TAGS);
        let node_ttl_ms = self.membership.node_ttl().as_millis();
        self.ticks.set(self.ticks.get().wrapping_add(1));
        let tick = Tick {
            incarnation: self.membership.incarnation(),
            node_ttl_ms: u64::try_from(node_ttl_ms).unwrap_or(u64::MAX),
            ranked: asks_rank(self.ticks.get(), self.membership.live()),
            description: (self.describe)().to_json(),
            gone: change.gone,
            begun: change.begun,
        };
        match self.redis.tick(&tick).await {
            Ok(fleet) => Some(fleet),
            Err(error) => {
                tracing::debug!(%error, "a heartbeat was not answered");
                None
            }
        }
    }

    fn alarm(&self, alarm: Alarm) {
        match alarm {
            Alarm::ClockForward { by_ms } => {
                self.metrics.clock_stepped(true);
                tracing::error!(
                    by_ms,
                    "the clock of Redis stepped forward: limits may be admitted once more"
                );
            }
            Alarm::ClockBack { by_ms } => {
                self.metrics.clock_stepped(false);
                tracing::warn!(
                    by_ms,
                    "the clock of Redis stepped back: limits stand still so long"
                );
            }
            Alarm::WritesLost { seen, now } => {
                self.metrics.writes_lost();
                tracing::error!(
                    seen,
                    now,
                    "redis lost writes that it had acknowledged: what they charged is free again"
                );
            }
        }
    }

    async fn sweep(&self, view: watch::Receiver<Option<View>>) {
        let Config { tick, lease_ttl, .. } = *self.config;
        let node_ttl = self.membership.node_ttl();
        let sweeper = Sweeper::new(Times { tick, node_ttl, lease_ttl }, self.metrics.clone());
        loop {
            sleep(tick / 2 + jittered(tick, self.random.next_u64())).await;
            let Some(view) = view.borrow().clone() else { continue };
            let age = view.at.elapsed();
            // Redis is away, and sweeping would only add to its trouble.
            if age > node_ttl {
                continue;
            }
            let now_ms = view.now_ms + u64::try_from(age.as_millis()).unwrap_or(0);
            sweeper.after_lost(self.redis, &view.lost, view.live, now_ms).await;
            sweeper.after_own(self.redis, self.membership).await;
        }
    }
}

/// Whether this tick asks for the node's rank, for which Redis looks at all nodes: the more there are,
/// the seldomer, so that a tick costs the same on average.
const fn asks_rank(tick: u32, live: u32) -> bool {
    tick.is_multiple_of(1 + live / CHEAP_RANK)
}

/// Any part of a wait.
fn jittered(wait: Duration, random: u64) -> Duration {
    let part = u32::try_from(random % 1024).unwrap_or(0);
    wait / 1024 * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_nodes_there_are_the_seldomer_a_rank_is_asked_for() {
        for (live, asked) in [(1, 1_000), (15, 1_000), (16, 500), (1_000, 16)] {
            let ticks = (0..1_000).filter(|tick| asks_rank(*tick, live)).count();
            assert_eq!(ticks, asked, "{live}");
        }
    }

    #[test]
    fn a_jittered_wait_is_a_part_of_it() {
        let wait = Duration::from_millis(250);
        assert!([0, 1, 1023, u64::MAX].iter().all(|random| jittered(wait, *random) < wait));
    }
}
