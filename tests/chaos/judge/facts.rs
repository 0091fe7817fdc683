//! What can be proved about each request from what was seen of it.
//!
//! A client does not see when its request was admitted, only an interval: no earlier than it was
//! sent, no later than the wall saw its attempt. So there are always two questions. *Surely*: what
//! must have been taken from a limit, whatever happened inside? And *maybe*: what can have been
//! taken at most? Too much is proved by what is sure, too little by what is not even possible.
//!
//! | seen | taken from a limit |
//! |---|---|
//! | the wall saw an attempt | surely, between `sent` and then |
//! | refused (4xx) and the wall saw nothing | nothing, ever |
//! | left, broken, 5xx, and the wall saw nothing | maybe, from `sent` on |
//!
//! Amounts: at least what was emitted, as far as it was surely reserved; at most what may have been
//! reserved, or what was emitted if that is more. Once a whole answer has had the time to be
//! settled it is exactly what was emitted. A node that dies, a store that forgets, or trouble
//! between them takes certainty away, never adds to it.

use std::collections::HashMap;

use super::history::{Ask, Attempt, End, Fault, History, Limit, Micros, What};

/// What one request, or one of its attempts, took from a limit, or may have taken.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// Its request: an index into the history's.
    pub(crate) ask: usize,
    /// Not before.
    pub(crate) lo: Micros,
    /// Not after, if it was taken by the store before its attempt.
    pub(crate) hi: Micros,
    /// Not after, also if it was taken elsewhere and charged later.
    pub(crate) late: Micros,
    /// At least so much was taken between `lo` and `hi`; 0: maybe nothing.
    pub(crate) surely: u64,
    /// At most so much, until it is settled.
    pub(crate) maybe: u64,
    /// From when on exactly how much.
    pub(crate) settled: Option<(Micros, u64)>,
}

impl Charge {
    /// The most that this can be at a time.
    pub(crate) fn maybe_at(&self, at: Micros) -> u64 {
        match self.settled {
            Some((since, amount)) if since <= at => amount,
            _ => self.maybe,
        }
    }
}

/// A history, and what follows from it.
pub(crate) struct Facts<'a> {
    pub(crate) history: &'a History,
    attempts: HashMap<u64, Vec<&'a Attempt>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        let mut attempts: HashMap<u64, Vec<&Attempt>> = HashMap::new();
        for attempt in &history.attempts {
            attempts.entry(attempt.ask).or_default().push(attempt);
        }
        for attempts in attempts.values_mut() {
            attempts.sort_by_key(|attempt| attempt.at);
        }
        Self { history, attempts }
    }

    /// What the wall saw of a request, in order.
    pub(crate) fn attempts(&self, ask: &Ask) -> &[&'a Attempt] {
        self.attempts.get(&ask.id).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing can have been taken for it, in the end.
    pub(crate) fn is_refused(&self, ask: &Ask) -> bool {
        let refused = matches!(ask.end, End::Answered { status: 400..500, .. });
        refused && self.attempts(ask).is_empty()
    }

    /// The first fault that stands between this node and the store, or stops the node, and is felt
    /// within this time.
    pub(crate) fn trouble(&self, node: usize, from: Micros, until: Micros) -> Option<&'a Fault> {
        let recovery = self.history.patience.recovery;
        self.concerning(node)
            .find(|fault| fault.from <= until && from <= fault.until.saturating_add(recovery))
    }

    /// The faults that stand between this node and the store, or stop the node.
    fn concerning(&self, node: usize) -> impl Iterator<Item = &'a Fault> {
        self.history.faults.iter().filter(move |fault| match fault.what {
            What::StoreAway | What::StoreEmptied => true,
            What::NodeStopped(it) | What::NodeCutOff(it) => it == node,
            What::NodeKilled(_) | What::Harmless => false,
        })
    }

    /// When this node was first killed within this time.
    pub(crate) fn killed(&self, node: usize, from: Micros, until: Micros) -> Option<&'a Fault> {
        let killed = self.history.faults.iter();
        let killed = killed.filter(|fault| fault.what == What::NodeKilled(node));
        let killed = killed.filter(|fault| fault.from <= until && from <= fault.until);
        killed.min_by_key(|fault| fault.from)
    }

    /// Whether the store may have forgotten something within this time.
    pub(crate) fn emptied(&self, from: Micros, until: Micros) -> bool {
        let mut faults = self.history.faults.iter();
        faults.any(|it| it.what == What::StoreEmptied && it.from <= until && from <= it.until)
    }

    /// Between which losses of all data both times lie; none where that is not sure.
    pub(crate) fn era(&self, from: Micros, until: Micros) -> Option<usize> {
        if self.emptied(from, until) {
            return None;
        }
        let emptied = self.history.faults.iter().filter(|it| it.what == What::StoreEmptied);
        Some(emptied.filter(|fault| fault.until < from).count())
    }

    /// When the usage of a request is surely settled as what the wall told; none where that is not
    /// sure at any time.
    pub(crate) fn settled(&self, ask: &Ask) -> Option<Micros> {
        let whole = matches!(ask.end, End::Answered { whole: true, .. });
        let attempts = self.attempts(ask);
        if !whole || attempts.is_empty() || !attempts.iter().all(|attempt| attempt.whole) {
            return None;
        }
        let patience = self.history.patience;
        let mut by = ask.over + patience.settle;
        loop {
            let felt = self.concerning(ask.node).filter(|fault| {
                fault.from <= by && ask.sent <= fault.until.saturating_add(patience.recovery)
            });
            let calm = felt.map(|it| it.until.saturating_add(patience.recovery + patience.settle));
            match calm.max() {
                Some(calm) if calm > by => by = calm,
                _ => break,
            }
        }
        let lost = self.killed(ask.node, ask.over, by).is_some() || self.emptied(ask.sent, by);
        (!lost).then_some(by)
    }

    /// All that was taken from a limit, or may have been, in the order of `lo`.
    pub(crate) fn charges(&self, limit: &Limit) -> Vec<Charge> {
        let mut charges = Vec::new();
        for (index, ask) in self.history.asks.iter().enumerate() {
            if limit.covers(ask) && !self.is_refused(ask) {
                self.charge(limit, index, ask, &mut charges);
            }
        }
        charges.sort_by_key(|charge| charge.lo);
        charges
    }

    fn charge(&self, limit: &Limit, index: usize, ask: &Ask, into: &mut Vec<Charge>) {
        let attempts = self.attempts(ask);
        let settled = self.settled(ask);
        let late = |hi| match self.trouble(ask.node, ask.sent, ask.over.max(hi)) {
            None => hi,
            Some(_) => settled.unwrap_or(Micros::MAX),
        };
        let most = limit.metric.of(ask.most);
        let Some(first) = attempts.first() else {
            let hi = ask.over + self.history.patience.release;
            let charge = Charge {
                ask: index,
                lo: ask.sent,
                hi,
                late: late(hi),
                surely: 0,
                maybe: most,
                settled: None,
            };
            into.push(charge);
            return;
        };
        if limit.metric.by_request() {
            let (lo, hi) = (ask.sent, first.at);
            let settled = settled.map(|at| (at, 1));
            let charge =
                Charge { ask: index, lo, hi, late: late(hi), surely: 1, maybe: 1, settled };
            into.push(charge);
            return;
        }
        let mut lo = ask.sent;
        let answered = matches!(ask.end, End::Answered { whole: true, .. });
        for attempt in attempts {
            let told = limit.metric.of(attempt.told);
            // What left the wall need not have arrived: who leaves at the end may be charged an
            // estimate.
            let sure = attempt.whole && answered;
            let surely = if sure { told.min(limit.metric.of(ask.least)) } else { 0 };
            let charge = Charge {
                ask: index,
                lo,
                hi: attempt.at,
                late: late(attempt.at),
                surely,
                maybe: most.max(told),
                settled: settled.map(|at| (at, told)),
            };
            into.push(charge);
            lo = attempt.at;
        }
    }
}
