//! Limits that are known to be over: whoever is refused asks again at once, and a fleet under an
//! attack would ask Redis about nothing else.
//!
//! A refusal is repeated here only for that same limit in that same scope, for a demand at least as
//! large, for at most `LONGEST_MS` and never beyond the wait that was told. Permits are never
//! refused so: one may be free at any moment. What another attempt gives back may be overlooked for
//! as long as that, and no longer.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::policy::limit::{Admit, Algorithm, Refusal, Rule};

/// The longest that a refusal is repeated.
const LONGEST_MS: u64 = 250;
/// Limits that are remembered at once; one more is not.
const MOST: usize = 1_024;

/// What was refused a moment ago.
#[derive(Debug, Default)]
pub(super) struct Known {
    over: HashMap<(Arc<str>, Arc<str>), Vec<Over>, RandomState>,
    count: usize,
}

/// One limit that is over.
#[derive(Clone, Copy, Debug)]
struct Over {
    rule: Rule,
    /// The least that is known not to fit.
    amount: u64,
    left: u64,
    /// When it fits at the earliest; none where it never does.
    fits_at: Option<u64>,
    until: u64,
}

impl Known {
    /// A limit refused this admission.
    pub(super) fn note(&mut self, admit: &Admit, refusal: Refusal, now: u64) {
        let Some(charge) = admit.charges.get(refusal.charge) else { return };
        let Some(scope) = admit.scopes.get(usize::from(charge.scope)) else { return };
        if charge.rule.algorithm == Algorithm::Permits {
            return;
        }
        let wait = refusal.wait_ms.unwrap_or(LONGEST_MS).min(LONGEST_MS);
        let over = Over {
            rule: charge.rule,
            amount: charge.amount,
            left: refusal.left,
            fits_at: refusal.wait_ms.map(|wait| now.saturating_add(wait)),
            until: now.saturating_add(wait),
        };
        if self.count >= MOST {
            self.sweep(now);
        }
        if self.count >= MOST {
            return;
        }
        let place = (Arc::clone(&admit.tag), Arc::clone(scope));
        let known = self.over.entry(place).or_default();
        match known.iter_mut().find(|known| known.rule.id == over.rule.id) {
            // A larger demand says nothing about the smaller one that is known.
            Some(known)
                if known.rule == over.rule && known.amount < over.amount && now < known.until => {}
            Some(known) => *known = over,
            None => {
                known.push(over);
                self.count += 1;
            }
        }
    }

    /// The refusal of a limit that is known to be over, if this admission asks one.
    pub(super) fn refuses(&self, admit: &Admit, now: u64) -> Option<Refusal> {
        for (index, scope) in admit.scopes.iter().enumerate() {
            let place = (Arc::clone(&admit.tag), Arc::clone(scope));
            let Some(known) = self.over.get(&place) else { continue };
            for (place, charge) in admit.charges.iter().enumerate() {
                let same = |over: &&Over| {
                    usize::from(charge.scope) == index
                        && over.rule == charge.rule
                        && charge.amount >= over.amount
                        && now < over.until
                };
                if let Some(over) = known.iter().find(same) {
                    let wait_ms = over.fits_at.map(|at| at.saturating_sub(now));
                    return Some(Refusal { charge: place, wait_ms, left: over.left });
                }
            }
        }
        None
    }

    /// Whether nothing was refused a moment ago.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets what is over.
    fn sweep(&mut self, now: u64) {
        self.over.retain(|_, known| {
            known.retain(|over| now < over.until);
            !known.is_empty()
        });
        self.count = self.over.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AttemptId, RequestId};
    use crate::policy::limit::{Charge, Degraded, Holder, LimitId, Metric};

    fn admit(scope: &str, amount: u64, algorithm: Algorithm) -> Admit {
        let rule = Rule { id: LimitId(*b"12345678"), algorithm, limit: 10 };
        let (holder, degraded) = (Holder::Request, Degraded::LocalShare);
        let metric = Metric::Tokens;
        let charge = Charge { scope: 0, rule, amount, holder, metric, degraded, hard: false };
        Admit {
            tag: "t:a".into(),
            id: AttemptId { request: RequestId::from_random([1; 16]), attempt: 1 },
            scopes: vec![scope.into()],
            charges: vec![charge],
            member: false,
            bill: None,
        }
    }

    const WINDOW: Algorithm = Algorithm::Window { slot_ms: 1_000, slots: 60 };

    fn refusal(wait_ms: Option<u64>) -> Refusal {
        Refusal { charge: 0, wait_ms, left: 3 }
    }

    #[test]
    fn only_the_same_limit_and_scope_and_no_smaller_demand_is_refused() {
        let mut known = Known::default();
        known.note(&admit("all", 5, WINDOW), refusal(Some(9_000)), 0);
        let refused = |scope, amount| known.refuses(&admit(scope, amount, WINDOW), 100).is_some();
        assert!(refused("all", 5) && refused("all", 6));
        assert!(!refused("all", 4) && !refused("other", 5));
        let mut other = admit("all", 5, WINDOW);
        other.charges[0].rule.limit = 11;
        assert_eq!(known.refuses(&other, 100), None);
        let told = known.refuses(&admit("all", 5, WINDOW), 100).expect("it is over");
        assert_eq!(told, refusal(Some(8_900)));
    }

    #[test]
    fn it_is_refused_for_a_quarter_of_a_second_and_never_beyond_the_told_wait() {
        for (wait, until) in [(Some(9_000), 250), (Some(40), 40), (None, 250)] {
            let mut known = Known::default();
            known.note(&admit("all", 5, WINDOW), refusal(wait), 1_000);
            let refused = |now| known.refuses(&admit("all", 5, WINDOW), now).is_some();
            assert!(refused(1_000) && refused(999 + until) && !refused(1_000 + until), "{wait:?}");
        }
    }

    #[test]
    fn permits_are_never_refused_here() {
        let mut known = Known::default();
        known.note(&admit("all", 1, Algorithm::Permits), refusal(None), 0);
        assert_eq!(known.refuses(&admit("all", 1, Algorithm::Permits), 0), None);
    }

    #[test]
    fn a_larger_demand_does_not_hide_a_smaller_one() {
        let mut known = Known::default();
        known.note(&admit("all", 5, WINDOW), refusal(Some(9_000)), 0);
        known.note(&admit("all", 8, WINDOW), refusal(Some(9_000)), 1);
        assert!(known.refuses(&admit("all", 5, WINDOW), 2).is_some());
    }

    #[test]
    fn it_is_bounded_and_forgets_what_is_over() {
        let mut known = Known::default();
        for scope in 0..2 * MOST {
            known.note(&admit(&scope.to_string(), 5, WINDOW), refusal(Some(9_000)), 0);
        }
        assert_eq!(known.count, MOST);
        known.note(&admit("new", 5, WINDOW), refusal(Some(9_000)), 250);
        assert_eq!((known.count, known.over.len()), (1, 1));
    }
}
