//! What a limiter must do, written down in the plainest way: a list of everything that was taken,
//! added up anew for each question. No rings, no totals, no decay: slow, and easy to believe.
//!
//! Times are in whatever unit its caller counts; windows, slots and leases in the same.

use std::collections::BTreeMap;

/// One limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// At most `limit` in this slot and the `slots` before it.
    Window { slot: u64, slots: u64, limit: u64 },
    /// `limit` flows back in `window`, up to `burst`.
    Bucket { window: u64, limit: u64, burst: u64 },
    /// At most `limit`, ever.
    Budget { limit: u64 },
    /// At most `limit` at the same time.
    Permits { limit: u64 },
}

/// Something that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    id: u64,
    at: u64,
    amount: u64,
}

/// All limits and what was taken from them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    rules: Vec<Rule>,
    taken: BTreeMap<usize, Vec<Taken>>,
}

impl Reference {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self { rules, taken: BTreeMap::new() }
    }

    /// Takes these amounts from these rules, all or none; the first rule that refuses.
    pub(crate) fn admit(
        &mut self,
        now: u64,
        id: u64,
        demand: &[(usize, u64)],
    ) -> Result<(), usize> {
        for (rule, amount) in demand {
            if self.used(now, *rule) + amount > self.room(*rule) {
                return Err(*rule);
            }
        }
        for (rule, amount) in demand {
            self.take(now, id, *rule, *amount);
        }
        Ok(())
    }

    /// Takes it, whatever the limit says.
    pub(crate) fn take(&mut self, now: u64, id: u64, rule: usize, amount: u64) {
        self.taken.entry(rule).or_default().push(Taken { id, at: now, amount });
    }

    /// What was taken under this id was so much; 0 gives it back.
    pub(crate) fn settle(&mut self, id: u64, rule: usize, amount: u64) {
        let taken = self.taken.entry(rule).or_default();
        for it in taken.iter_mut().rev().filter(|it| it.id == id) {
            it.amount = amount;
        }
        taken.retain(|it| it.amount > 0);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.taken.clear();
    }

    /// Changes how much a rule allows; what was taken stays.
    pub(crate) fn set_limit(&mut self, rule: usize, to: u64) {
        match &mut self.rules[rule] {
            Rule::Window { limit, .. }
            | Rule::Bucket { limit, .. }
            | Rule::Budget { limit }
            | Rule::Permits { limit } => *limit = to,
        }
    }

    /// How much there is at once.
    pub(crate) fn room(&self, rule: usize) -> u64 {
        match self.rules[rule] {
            Rule::Window { limit, .. } | Rule::Budget { limit } | Rule::Permits { limit } => limit,
            Rule::Bucket { burst, .. } => burst,
        }
    }

    /// How much of it is used at a time.
    pub(crate) fn used(&self, now: u64, rule: usize) -> u64 {
        let taken = self.taken.get(&rule).map_or(&[][..], Vec::as_slice);
        match self.rules[rule] {
            Rule::Budget { .. } | Rule::Permits { .. } => taken.iter().map(|it| it.amount).sum(),
            Rule::Window { slot, slots, .. } => {
                let oldest = (now / slot).saturating_sub(slots);
                let counts = taken.iter().filter(|it| it.at / slot >= oldest);
                counts.map(|it| it.amount).sum()
            }
            Rule::Bucket { window, limit, .. } => {
                // From each beginning on: what was taken less what flowed back since.
                let (mut level, mut last) = (0_u128, 0);
                for it in taken {
                    let flowed = u128::from(it.at - last) * u128::from(limit);
                    level = level.saturating_sub(flowed) + u128::from(it.amount * window);
                    last = it.at;
                }
                let flowed = u128::from(now.saturating_sub(last)) * u128::from(limit);
                let level = level.saturating_sub(flowed);
                u64::try_from(level.div_ceil(u128::from(window))).unwrap_or(u64::MAX)
            }
        }
    }
}
