//! Phase: which target gets the next attempt.
//!
//! Every target that the key may reach is tried once, tier by tier, before any is asked again;
//! those that refused our credential, or ran out of their clock, are not asked again at all, and
//! no target before the time that it asked for itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::domain::{Code, Fault};
use crate::policy::balance::Candidate;
use crate::policy::retry::Failure;
use crate::snapshot::{Key, Pool, Target};

/// The targets of one request and what became of them.
#[derive(Debug)]
pub(super) struct Plan {
    pool: Arc<Pool>,
    /// Places (tier, place in the tier) that this key may reach, in order of the tiers.
    reachable: SmallVec<[Place; 8]>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    tier: usize,
    place: usize,
    standing: Standing,
    /// When its provider wants to be asked again at the earliest.
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Untried,
    Failed,
    Given,
}

impl Plan {
    /// The plan for a request of `key` for `model` to `pool`.
    ///
    /// # Errors
    /// `model_not_allowed` where the key may reach none of the pool's targets, `no_target` where
    /// those that it may reach have no credential on this node.
    pub(super) fn new(pool: &Arc<Pool>, key: &Key, model: &str) -> Result<Self, Fault> {
        let mut reachable = SmallVec::new();
        let mut forbidden = 0;
        for (tier, targets) in pool.tiers.iter().enumerate() {
            for (place, target) in targets.iter().enumerate() {
                let upstream_model = target.model.as_deref().unwrap_or(model);
                if !key.may_reach(target, upstream_model) {
                    forbidden += 1;
                } else if target.provider.enabled {
                    let standing = Standing::Untried;
                    reachable.push(Place { tier, place, standing, not_before: None });
                }
            }
        }
        if !reachable.is_empty() {
            return Ok(Self { pool: Arc::clone(pool), reachable });
        }
        let targets: usize = pool.tiers.iter().map(Vec::len).sum();
        Err(if forbidden == targets {
            let message = format!("this API key may not use any target behind model {model:?}");
            Fault::new(Code::ModelNotAllowed, message)
        } else {
            let message = format!("no target behind model {model:?} can be used on this node");
            Fault::new(Code::NoTarget, message)
        })
    }

    /// The next target: an untried one of the first tier that has any, else one that failed and
    /// may be asked again at `now`.
    pub(super) fn next(&mut self, now: Instant, random: u64) -> Option<Arc<Target>> {
        let standing = if self.has_untried() { Standing::Untried } else { Standing::Failed };
        let of_standing = |place: &&Place| {
            place.standing == standing && place.not_before.is_none_or(|at| at <= now)
        };
        let tier = self.reachable.iter().find(of_standing)?.tier;
        let candidates: SmallVec<[Candidate; 8]> = self
            .reachable
            .iter()
            .enumerate()
            .filter(|(_, place)| of_standing(place) && place.tier == tier)
            .map(|(index, place)| Candidate { index, weight: self.target(*place).weight })
            .collect();
        let chosen = self.pool.strategy.choose(&candidates, random)?;
        let place = self.reachable.get_mut(chosen)?;
        place.standing = Standing::Given;
        let place = *place;
        Some(Arc::clone(self.target(place)))
    }

    /// Records that the target given last failed, so that it may be asked again if that may help,
    /// and not before the time that its provider named.
    pub(super) fn failed(
        &mut self,
        target: &Target,
        failure: Failure,
        not_before: Option<Instant>,
    ) {
        if !failure.may_pass() {
            return;
        }
        for place in &mut self.reachable {
            if self.pool.tiers[place.tier][place.place].index == target.index {
                place.standing = Standing::Failed;
                place.not_before = not_before;
            }
        }
    }

    /// How long it takes until one of the targets that failed may be asked again.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let failed = self.reachable.iter().filter(|place| place.standing == Standing::Failed);
        let waits = failed.map(|place| {
            place.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
        });
        waits.min()
    }

    /// Whether a target is left that was not tried yet.
    pub(super) fn has_untried(&self) -> bool {
        self.reachable.iter().any(|place| place.standing == Standing::Untried)
    }

    fn target(&self, place: Place) -> &Arc<Target> {
        &self.pool.tiers[place.tier][place.place]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn order(plan: &mut Plan, failure: Failure, rounds: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..rounds {
            let Some(target) = plan.next(Instant::now(), 0) else { break };
            names.push(target.name.to_string());
            plan.failed(&target, failure, None);
        }
        names
    }

    #[test]
    fn tiers_are_tried_in_order_before_any_target_is_asked_again() {
        let pool = testing::pool("p", &[&["a", "b"], &["c"]]);
        let mut plan = Plan::new(&pool, &testing::key("any", None), "m").expect("reachable");
        let names = order(&mut plan, Failure::Status(503), 5);
        assert_eq!(names, ["a", "b", "c", "a", "a"]);
    }

    #[test]
    fn a_target_that_refused_our_credential_is_not_asked_again() {
        let pool = testing::pool("p", &[&["a"], &["b"]]);
        let mut plan = Plan::new(&pool, &testing::key("any", None), "m").expect("reachable");
        assert_eq!(order(&mut plan, Failure::Status(401), 9), ["a", "b"]);
    }

    // T21: one target's failure does not shorten the wait that another one asked for.
    #[test]
    fn a_target_is_not_asked_again_before_its_time() {
        let pool = testing::pool("p", &[&["a"], &["b"]]);
        let mut plan = Plan::new(&pool, &testing::key("any", None), "m").expect("reachable");
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let busy = plan.next(now, 0).expect("untried");
        plan.failed(&busy, Failure::Status(429), Some(later));
        assert_eq!(plan.wait(now), Some(Duration::from_secs(5)));
        let broken = plan.next(now, 0).expect("untried");
        plan.failed(&broken, Failure::Status(500), None);
        assert_eq!(plan.wait(now), Some(Duration::ZERO));
        assert_eq!(plan.next(now, 0).expect("it may be asked").name, broken.name);
        assert!(plan.next(now, 0).is_none());
        assert_eq!(plan.next(later, 0).expect("its time has come").name, busy.name);
    }

    // T6, the part of permissions: what a key may not reach is never given to it.
    #[test]
    fn what_the_key_may_not_reach_is_left_out() {
        let pool = testing::pool("p", &[&["a"]]);
        let tenant = testing::tenant("t", Some(&["other"]));
        let key = testing::key_of(tenant);
        let fault = Plan::new(&pool, &key, "m").expect_err("nothing reachable");
        assert_eq!(fault.code, Code::ModelNotAllowed);
    }
}
