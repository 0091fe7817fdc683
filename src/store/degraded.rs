//! What a node decides by itself while the store of a tag gives no verdict.
//!
//! Each limit has a rule for it. One that is to be closed denies; one that is to be open is not
//! asked; of any other one this node has a share (`policy::limit::share`), which a twin beside the
//! ledger counts. The twin is the node's, not a worker's, and lives as long as the node: what was
//! admitted in one outage still counts in the next. What is admitted so is settled in the twin, and
//! told to the store as well once it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::clock::Clock;
use super::ledger::Entry;
use super::local::Local;
use super::membership::Membership;
use crate::domain::AttemptId;
use crate::policy::limit::share::{self, Fleet, Share};
use crate::policy::limit::{
    Admit, Algorithm, Charge, Degraded, Origin, Refusal, Settle, TopUp, Verdict,
};
use crate::telemetry::StoreMetrics;

/// What a client is told to wait whose demand does not fit this node's share: the store may be back.
const SHARE_WAIT_MS: u64 = 1_000;
/// A store that was silent so recently is not yet back: of several connections one may still be down.
const SILENT_MS: u64 = 300;
/// The function that is degraded, as metrics name it.
const LIMITS: &str = "limits";

/// The node on its own.
#[derive(Debug)]
pub(super) struct Alone {
    pub(super) twin: Local,
    clock: Clock,
    /// How many nodes live, as a node knows it that ticks.
    membership: Option<Arc<Membership>>,
    /// When the store last gave no verdict; 0 while all is well.
    silent_at: AtomicU64,
    metrics: StoreMetrics,
}

/// What the twin holds of one admission.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    /// The charges that it was asked for.
    pub(super) admit: Admit,
    /// Where each of them stands among the charges of the whole admission.
    places: SmallVec<[usize; 4]>,
    /// Top-ups so far.
    steps: u8,
}

/// Why the node admits nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Not {
    /// This charge's limit is to be closed now.
    Closed(usize),
    /// The share is used up.
    Refused(Refusal),
    /// A budget was asked for in another period than this one.
    StalePeriod(u64),
}

impl Alone {
    pub(super) fn new(
        clock: Clock,
        metrics: StoreMetrics,
        membership: Option<Arc<Membership>>,
    ) -> Self {
        let twin = Local::new(clock.clone(), None, metrics.clone());
        Self { twin, clock, membership, silent_at: AtomicU64::new(0), metrics }
    }

    /// How many nodes were live when the store was last reached, this one included, and its rank
    /// among them. Until then a node counts itself as the only one.
    pub(super) fn fleet(&self) -> Fleet {
        let known = self.membership.as_ref();
        known.map_or_else(Fleet::default, |known| Fleet { live: known.live(), rank: known.rank() })
    }

    /// Decides an admission by the rules of its limits. Answers what the twin holds of it, if
    /// anything, and what is left of each limit.
    pub(super) fn admit(&self, admit: &Admit) -> Result<(Option<Aside>, Vec<u64>), Not> {
        self.silent();
        let decided = self.decide(admit);
        match &decided {
            Ok((Some(_), _)) => self.metrics.admitted_degraded("local_share"),
            Ok((None, _)) => self.metrics.admitted_degraded("fail_open"),
            Err(Not::Closed(_)) => self.metrics.denied_degraded("fail_closed"),
            Err(Not::Refused(_)) => self.metrics.denied_degraded("local_share"),
            Err(Not::StalePeriod(_)) => {}
        }
        decided
    }

    fn decide(&self, admit: &Admit) -> Result<(Option<Aside>, Vec<u64>), Not> {
        let closed = |charge: &Charge| charge.degraded == Degraded::FailClosed;
        if let Some(place) = admit.charges.iter().position(closed) {
            return Err(Not::Closed(place));
        }
        let Some(aside) = self.aside(admit, |charge| charge.amount)? else {
            // Nothing was asked, so nothing is known of what is left.
            return Ok((None, Vec::new()));
        };
        match self.twin.admit_now(&aside.admit) {
            Verdict::Admitted(left) => {
                // A limit that was not asked has all of it, as far as is known.
                let mut all: Vec<_> = admit.charges.iter().map(|one| one.rule.limit).collect();
                for (place, left) in aside.places.iter().zip(left) {
                    if let Some(kept) = all.get_mut(*place) {
                        *kept = left;
                    }
                }
                Ok((Some(aside), all))
            }
            Verdict::Refused(refusal) => Err(Not::Refused(aside.named(refusal))),
            Verdict::StalePeriod => Err(Not::StalePeriod(self.clock.now())),
            Verdict::Duplicate | Verdict::Late => Ok((Some(aside), Vec::new())),
        }
    }

    /// Takes more of this node's shares for an attempt that runs. `more` says how much of each
    /// charge. Answers the limit that refuses, if any does.
    pub(super) fn top_up(
        &self,
        admit: &Admit,
        aside: &mut Option<Aside>,
        more: impl Fn(&Charge) -> u64,
    ) -> Result<(), usize> {
        self.silent();
        let closed = |charge: &Charge| charge.degraded == Degraded::FailClosed && more(charge) > 0;
        if let Some(place) = admit.charges.iter().position(closed) {
            return Err(place);
        }
        let refused = |not| match not {
            Not::Closed(place) => Err(place),
            Not::Refused(refusal) => Err(refusal.charge),
            // What is used from now on is charged to the period that follows when it is settled.
            Not::StalePeriod(_) => Ok(()),
        };
        let asked = match self.aside(admit, &more) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(not) => return refused(not),
        };
        let verdict = match aside {
            None => {
                let verdict = self.twin.admit_now(&asked.admit);
                if matches!(verdict, Verdict::Admitted(_)) {
                    *aside = Some(asked.clone());
                }
                verdict
            }
            Some(held) => {
                // As in the admission: of what it did not ask for then there is nothing.
                let charges = held.admit.charges.iter().zip(&held.places).map(|(charge, place)| {
                    let found = asked.places.iter().position(|known| known == place);
                    let now = found.and_then(|at| asked.admit.charges.get(at));
                    now.copied().unwrap_or(Charge { amount: 0, ..*charge })
                });
                let command = TopUp {
                    tag: Arc::clone(&admit.tag),
                    id: held.admit.id,
                    step: held.steps.saturating_add(1),
                    scopes: held.admit.scopes.clone(),
                    charges: charges.collect(),
                };
                let verdict = self.twin.top_up_now(&command);
                if matches!(verdict, Verdict::Admitted(_)) {
                    held.steps = command.step;
                }
                match verdict {
                    Verdict::Refused(refusal) => {
                        return refused(Not::Refused(held.named(refusal)));
                    }
                    other => other,
                }
            }
        };
        match verdict {
            Verdict::Refused(refusal) => refused(Not::Refused(asked.named(refusal))),
            _ => Ok(()),
        }
    }

    /// Settles what the twin holds: `amount` says how much of the charge at this place was used.
    pub(super) fn settle(&self, aside: &Aside, amount: impl Fn(usize) -> u64) {
        let charges = aside.admit.charges.iter().zip(&aside.places);
        let charges = charges.map(|(charge, place)| Charge { amount: amount(*place), ..*charge });
        let settle = Settle {
            id: aside.admit.id,
            scopes: aside.admit.scopes.clone(),
            charges: charges.collect(),
            origin: Origin::Member,
        };
        let tag = Arc::clone(&aside.admit.tag);
        self.twin.post(&Entry { tag, settle: Some(settle), usage: None });
    }

    /// Releases permits that the twin has given.
    pub(super) fn release(&self, admit: &Admit, id: AttemptId, which: impl Fn(&Charge) -> bool) {
        let charges = admit.charges.iter().filter(|charge| which(charge));
        let settle = Settle {
            id,
            scopes: admit.scopes.clone(),
            charges: charges.map(|charge| Charge { amount: 0, ..*charge }).collect(),
            origin: Origin::Member,
        };
        let tag = Arc::clone(&admit.tag);
        self.twin.post(&Entry { tag, settle: Some(settle), usage: None });
    }

    /// The store gave a verdict.
    pub(super) fn heard(&self) {
        let silent_at = self.silent_at.load(Ordering::Relaxed);
        if silent_at == 0 {
            return;
        }
        let now = self.clock.now();
        if now.saturating_sub(silent_at) < SILENT_MS {
            return;
        }
        let same = Ordering::Relaxed;
        if self.silent_at.compare_exchange(silent_at, 0, same, same).is_ok() {
            self.metrics.degraded_for(LIMITS, Duration::from_millis(now - silent_at));
            self.metrics.degraded(LIMITS, false);
            tracing::info!("limits are counted by the store again");
        }
    }

    /// It gave none.
    fn silent(&self) {
        let now = self.clock.now().max(1);
        let before = self.silent_at.swap(now, Ordering::Relaxed);
        if before == 0 {
            self.metrics.degraded(LIMITS, true);
            tracing::warn!(
                nodes = self.fleet().live,
                "the store of limits does not answer; each limit goes on by its rule"
            );
        } else {
            let more = Duration::from_millis(now.saturating_sub(before));
            self.metrics.degraded_for(LIMITS, more);
        }
    }

    /// The charges of an admission that this node has a share of, with these amounts. None where
    /// there are none.
    fn aside(&self, admit: &Admit, amount: impl Fn(&Charge) -> u64) -> Result<Option<Aside>, Not> {
        let (fleet, now) = (self.fleet(), self.clock.now());
        let mut charges = Vec::new();
        let mut places = SmallVec::new();
        for (place, charge) in admit.charges.iter().enumerate() {
            let amount = amount(charge);
            if charge.degraded != Degraded::LocalShare || amount == 0 {
                continue;
            }
            match share::share(&charge.rule, fleet, now) {
                Share::Of(rule) => charges.push(Charge { rule, amount, ..*charge }),
                Share::Later(wait) => {
                    let refusal = Refusal { charge: place, wait_ms: Some(wait), left: 0 };
                    return Err(Not::Refused(refusal));
                }
            }
            places.push(place);
        }
        if charges.is_empty() {
            return Ok(None);
        }
        let admit = Admit {
            tag: Arc::clone(&admit.tag),
            id: admit.id,
            scopes: admit.scopes.clone(),
            charges,
            // So that all of it can be given back.
            member: true,
            bill: None,
        };
        Ok(Some(Aside { admit, places, steps: 0 }))
    }
}

impl Aside {
    /// The refusal with the place of its charge in the whole admission.
    fn named(&self, refusal: Refusal) -> Refusal {
        let charge = self.places.get(refusal.charge).copied().unwrap_or(0);
        let of = self.admit.charges.get(refusal.charge);
        let waits = of.is_some_and(|charge| charge.rule.algorithm != Algorithm::Permits);
        let wait_ms = refusal.wait_ms.or(waits.then_some(SHARE_WAIT_MS));
        Refusal { charge, wait_ms, left: refusal.left }
    }
}
