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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Untried,
    /// Failed; may be asked again, but not before its provider's `Retry-After` is over.
    Failed {
        ready: Instant,
    },
    /// Under way, or not to be asked again.
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
                    reachable.push(Place { tier, place, standing: Standing::Untried });
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
    /// may be asked again by now.
    pub(super) fn next(&mut self, random: u64, now: Instant) -> Option<Arc<Target>> {
        let untried = self.has_untried();
        let is_due = |place: &Place| match place.standing {
            Standing::Untried => true,
            Standing::Failed { ready } => !untried && ready <= now,
            Standing::Given => false,
        };
        let tier = self.reachable.iter().find(|place| is_due(place))?.tier;
        let candidates: SmallVec<[Candidate; 8]> = self
            .reachable
            .iter()
            .enumerate()
            .filter(|(_, place)| is_due(place) && place.tier == tier)
            .map(|(index, place)| Candidate { index, weight: self.target(*place).weight })
            .collect();
        let chosen = self.pool.strategy.choose(&candidates, random)?;
        let place = self.reachable.get_mut(chosen)?;
        place.standing = Standing::Given;
        let place = *place;
        Some(Arc::clone(self.target(place)))
    }

    /// Records that the target given last failed at `now`: it may be asked again if that may help,
    /// `retry_after` from then. A target that stands in several tiers failed in all of them.
    pub(super) fn failed(
        &mut self,
        target: &Target,
        failure: Failure,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        // A time beyond what the clock can hold never comes.
        let ready = now.checked_add(retry_after.unwrap_or_default());
        let standing = match ready.filter(|_| failure.may_pass()) {
            Some(ready) => Standing::Failed { ready },
            None => Standing::Given,
        };
        for place in &mut self.reachable {
            if self.pool.tiers[place.tier][place.place].index == target.index {
                place.standing = standing;
            }
        }
    }

    /// How long it takes from `now` until a target that failed may be asked again.
    pub(super) fn again(&self, now: Instant) -> Option<Duration> {
        let ready = self.reachable.iter().filter_map(|place| match place.standing {
            Standing::Failed { ready } => Some(ready),
            Standing::Untried | Standing::Given => None,
        });
        ready.min().map(|ready| ready.saturating_duration_since(now))
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
        let now = Instant::now();
        for _ in 0..rounds {
            let Some(target) = plan.next(0, now) else { break };
            names.push(target.name.to_string());
            plan.failed(&target, failure, None, now);
        }
        names
    }

    fn plan(tiers: &[&[&str]]) -> Plan {
        let pool = testing::pool("p", tiers);
        Plan::new(&pool, &testing::key("any", None), "m").expect("reachable")
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

    #[test]
    fn a_target_in_two_tiers_is_one_target() {
        let mut pool = testing::pool("p", &[&["a"], &["b"]]);
        let tiers = &mut Arc::get_mut(&mut pool).expect("nobody else has it").tiers;
        let a = Arc::clone(&tiers[0][0]);
        tiers[1].push(a);
        let plan = || Plan::new(&pool, &testing::key("any", None), "m").expect("reachable");
        assert_eq!(order(&mut plan(), Failure::Timeout, 9), ["a", "b"]);
        assert_eq!(order(&mut plan(), Failure::Busy, 3), ["a", "b", "a"]);
    }

    #[test]
    fn a_target_is_left_alone_for_as_long_as_it_asked() {
        let (mut plan, now) = (plan(&[&["a"], &["b"]]), Instant::now());
        let [second, minute] = [1, 60].map(Duration::from_secs);
        for wait in [minute, second] {
            let target = plan.next(0, now).expect("an untried one");
            plan.failed(&target, Failure::Status(429), Some(wait), now);
        }
        assert_eq!(plan.again(now), Some(second));
        assert!(plan.next(0, now).is_none());
        let target = plan.next(0, now + second).expect("one that is ready");
        assert_eq!(&*target.name, "b");
        plan.failed(&target, Failure::Status(429), Some(Duration::MAX), now);
        assert_eq!(plan.again(now), Some(minute), "what never ends is left out");
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
