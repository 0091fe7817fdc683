//! Tidying up after nodes that are gone: reservations whose lease has ended are settled as they are,
//! so that nothing stays taken that nobody will ever give back.
//!
//! Any living node does it, and several may at once: each member is settled by whoever comes first,
//! and the others change nothing. To keep them from all doing the same, each throws dice for its
//! turn, and takes some of the lost node's tags at random; what is swept is taken off the list. What
//! one turn does is bounded, so that a node that was lost with a hundred thousand tags is swept in
//! many turns.
//!
//! Permits need no sweep: they count until their lease ends, and no longer.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Random;
use crate::policy::limit::{Batch, Lapsed, Origin, Settle};
use crate::store::Commands;
use crate::store::membership::Membership;
use crate::store::redis::{Lost, Redis};
use crate::telemetry::FleetMetrics;

/// Lost nodes that one turn looks at.
const NODES: usize = 4;
/// Tags of one of them.
const TAGS: usize = 32;
/// Members of one tag that one script settles: about a millisecond of Redis's time.
const MEMBERS: usize = 256;
/// Such scripts for one tag in one turn.
const SCRIPTS: usize = 8;
/// Own tags that one turn looks after at most.
const OWN: usize = 16;
/// Of this many nodes one has its turn on average, however many more there are: the others' dice
/// would make a lost node wait.
const MOST_DICE: u64 = 8;

/// The times that decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) tick: Duration,
    pub(super) node_ttl: Duration,
    pub(super) lease_ttl: Duration,
}

/// One node's sweeper.
#[derive(Debug)]
pub(super) struct Sweeper {
    times: Times,
    /// Batches are numbered by node and tag, and the ledger has its own numbers.
    incarnation: u64,
    number: Cell<u64>,
    random: Random,
    metrics: FleetMetrics,
}

/// Whether all leases of a lost node have ended. They were renewed at its last tick at the latest,
/// or shortly after.
pub(super) fn is_ripe(lost: Lost, times: Times, now_ms: u64) -> bool {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let last_seen_ms = lost.since_ms.saturating_sub(ms(times.node_ttl));
    now_ms >= last_seen_ms.saturating_add(ms(times.lease_ttl)).saturating_add(ms(times.tick))
}

/// Whether this node takes its turn now.
pub(super) fn has_turn(live: u32, random: u64) -> bool {
    random.is_multiple_of(u64::from(live).clamp(1, MOST_DICE))
}

/// How many of its tags a node looks after in one turn, so that each is seen twice in the time that
/// a lease lives, if they are not too many.
pub(super) fn own_share(tags: usize, times: Times) -> usize {
    let turns = times.lease_ttl.as_nanos() / (2 * times.tick.as_nanos()).max(1);
    let turns = usize::try_from(turns).unwrap_or(usize::MAX).max(1);
    tags.div_ceil(turns).min(OWN)
}

impl Sweeper {
    pub(super) fn new(times: Times, metrics: FleetMetrics) -> Self {
        let random = Random::new();
        Self { times, incarnation: random.next_u64(), number: Cell::new(0), random, metrics }
    }

    /// One turn at what lost nodes left.
    pub(super) async fn after_lost(&self, redis: &Redis, lost: &[Lost], live: u32, now_ms: u64) {
        let ripe = lost.iter().filter(|lost| is_ripe(**lost, self.times, now_ms)).take(NODES);
        for lost in ripe {
            if !has_turn(live, self.random.next_u64()) {
                continue;
            }
            if let Err(error) = self.after(redis, lost.incarnation).await {
                tracing::debug!(%error, "a lost node is not swept yet");
                return;
            }
        }
    }

    /// One turn at what is left under this node's own tags, by itself or by others: a fault, an
    /// outage, or a node whose list of tags was lost.
    pub(super) async fn after_own(&self, redis: &Redis, membership: &Membership) {
        let share = own_share(membership.tags(), self.times);
        for tag in membership.look_after(share) {
            match self.sweep(redis, &tag, false).await {
                Ok(true) => membership.is_clean(&tag, 2 * self.times.lease_ttl),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "own tags are not swept now");
                    return;
                }
            }
        }
    }

    async fn after(
        &self,
        redis: &Redis,
        incarnation: u64,
    ) -> Result<(), crate::store::connection::Error> {
        let tags = redis.tags(incarnation, TAGS).await?;
        let mut swept = Vec::with_capacity(tags.len());
        for tag in tags {
            match self.sweep(redis, &tag, true).await {
                Ok(true) => swept.push(tag),
                Ok(false) => {}
                // The others may be on a master that answers.
                Err(error) => tracing::debug!(%error, "a tag of a lost node is not swept yet"),
            }
        }
        if redis.forget(incarnation, &swept).await? == Some(0) {
            self.metrics.forgotten();
            tracing::info!(
                incarnation = format!("{incarnation:016x}"),
                "a lost node is swept after and forgotten"
            );
        }
        Ok(())
    }

    /// Settles members of a tag whose lease has ended. True: none is left.
    async fn sweep(
        &self,
        redis: &Redis,
        tag: &Arc<str>,
        lost: bool,
    ) -> Result<bool, crate::store::Away> {
        for _ in 0..SCRIPTS {
            let lapsed = Commands::lapsed(redis, tag, MEMBERS).await?;
            if lapsed.is_empty() {
                return Ok(true);
            }
            let members = lapsed.len();
            let number = self.number.get() + 1;
            self.number.set(number);
            let settles = lapsed.into_iter().map(settle).collect();
            let (tag, incarnation) = (Arc::clone(tag), self.incarnation);
            let batch = Batch { tag, incarnation, number, settles, usage: Vec::new() };
            Commands::apply(redis, &batch).await?;
            self.metrics.swept(members, lost);
        }
        Ok(false)
    }
}

fn settle(lapsed: Lapsed) -> Settle {
    let Lapsed { id, scopes, charges, bill: _ } = lapsed;
    Settle { id, scopes, charges, origin: Origin::Lapsed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        tick: Duration::from_millis(250),
        node_ttl: Duration::from_millis(2_500),
        lease_ttl: Duration::from_secs(10),
    };

    #[test]
    fn a_lost_node_is_swept_once_its_last_lease_has_ended() {
        // It ticked for the last time at 100,000.
        let lost = Lost { incarnation: 1, since_ms: 102_500 };
        assert!(!is_ripe(lost, TIMES, 110_249));
        assert!(is_ripe(lost, TIMES, 110_250));
    }

    #[test]
    fn one_node_of_the_fleet_has_its_turn_on_average() {
        for live in [1, 2, 8] {
            let turns = (0..8_000_u64).filter(|random| has_turn(live, *random)).count();
            assert_eq!(turns, 8_000 / usize::try_from(live).expect("small"));
        }
        assert!((0..8).any(|random| has_turn(1_000, random)), "a large fleet waits no longer");
        assert!(has_turn(0, 5), "a node that knows of none counts itself");
    }

    #[test]
    fn own_tags_are_looked_after_twice_in_a_lease_and_never_too_many_at_once() {
        assert_eq!(own_share(0, TIMES), 0);
        assert_eq!(own_share(1, TIMES), 1);
        assert_eq!(own_share(40, TIMES), 2);
        assert_eq!(own_share(100_000, TIMES), OWN);
    }
}
