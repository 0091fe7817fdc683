//! Too little: a request was refused though, whatever happened inside, there was room for it.
//!
//! A limit may refuse only when what it holds and what is asked do not fit. So each refusal is a
//! witness: within the window before it, one slot longer than the window and at most as stale as a
//! node may remember a refusal, more than `limit - demand` must have been taken. Where even
//! everything that may have been taken does not come to that, the refusal had no ground.
//!
//! From this the share that is promised under saturating demand follows: a limit that refuses all
//! the time has been used up all the time. It is measured all the same.

use super::check::Violation;
use super::facts::{Charge, Facts};
use super::history::{Algorithm, Ask, End, Limit, Micros};
use super::permits::Holds;

/// How many requests a limit refused, what share of it was taken under saturating demand, and
/// whether that is too little. Where several limits may have refused, it was none of them.
pub(crate) fn judge(
    facts: &Facts<'_>,
    grounds: &[Ground<'_>],
    at: usize,
) -> (usize, Option<f64>, Option<Violation>) {
    let Ground { limit, charges, .. } = &grounds[at];
    let others = grounds
        .iter()
        .enumerate()
        .filter(|(other, ground)| *other != at && ground.limit.code() == limit.code());
    let others: Vec<_> = others.map(|(_, ground)| ground).collect();
    let refused: Vec<&Ask> = (facts.history.asks.iter())
        .filter(|ask| limit.covers(ask) && code(ask) == Some(limit.code()))
        .filter(|ask| !others.iter().any(|it| it.limit.covers(ask) && it.is_good(facts, ask)))
        .collect();
    let saturated = saturated(facts, limit, charges, &refused);
    let wrong = saturated.as_ref().and_then(|saturated| saturated.violation(limit));
    (refused.len(), saturated.map(|it| it.share()), wrong)
}

/// The codes of limits: a provider's own 429 has others.
const CODES: [&str; 5] =
    ["rate_limited", "tokens_limited", "cost_limited", "concurrency_limited", "budget_exceeded"];

/// The code of a request that was refused by a limit.
fn code(ask: &Ask) -> Option<&str> {
    match &ask.end {
        End::Answered { status: 429, code, .. } => {
            Some(code).filter(|it| CODES.contains(&it.as_str()))
        }
        _ => None,
    }
    .map(String::as_str)
}

/// The refusals that no limit had a ground for.
pub(crate) fn groundless(facts: &Facts<'_>, grounds: &[Ground<'_>]) -> Vec<Violation> {
    // The smallest first: it is the likeliest to have refused.
    let mut grounds: Vec<_> = grounds.iter().collect();
    grounds.sort_by_key(|ground| ground.room());
    let mut wrong: Vec<(usize, String)> = Vec::new();
    for (index, ask) in facts.history.asks.iter().enumerate() {
        let Some(code) = code(ask) else { continue };
        if facts.trouble(ask.node, ask.sent, ask.over).is_some() {
            continue;
        }
        let mut nearest = None;
        let concerned = grounds.iter().filter(|it| it.limit.code() == code && it.limit.covers(ask));
        let mut good = false;
        for ground in concerned {
            if ground.is_good(facts, ask) {
                good = true;
                break;
            }
            let (taken, demand) = (ground.taken(facts, ask), ground.limit.metric.of(ask.most));
            nearest = Some(format!(
                "refused by {code} though at most {taken} of {} were taken and {demand} asked",
                ground.room()
            ));
        }
        if !good {
            let none = || format!("refused by {code}, which no limit of it says");
            wrong.push((index, nearest.unwrap_or_else(none)));
        }
    }
    let Some((first, what)) = wrong.first() else { return Vec::new() };
    let ask = &facts.history.asks[*first];
    let around = facts.history.asks.iter().enumerate().filter(|(index, other)| {
        index == first
            || (other.who == ask.who && other.sent < ask.over && !facts.is_refused(other))
    });
    // What came last before it says most.
    let mut around: Vec<usize> = around.map(|(index, _)| index).collect();
    around.sort_by_key(|index| std::cmp::Reverse(facts.history.asks[*index].sent));
    around.truncate(20);
    let what = format!("{what} ({} such refusals)", wrong.len());
    vec![Violation::new("refusals", what, ask.sent, ask.over, around)]
}

/// All that may have been taken from one limit.
pub(crate) struct Ground<'a> {
    limit: &'a Limit,
    /// In the order of `lo`.
    pub(crate) charges: Vec<Charge>,
    /// For each charge: the latest `late` of it and all before.
    latest: Vec<Micros>,
    holds: Holds,
}

impl<'a> Ground<'a> {
    pub(crate) fn of(facts: &Facts<'_>, limit: &'a Limit) -> Self {
        let charges = facts.charges(limit);
        let latest = charges.iter().scan(0, |latest: &mut Micros, charge| {
            *latest = charge.late.max(*latest);
            Some(*latest)
        });
        let latest = latest.collect();
        Self { limit, charges, latest, holds: Holds::of(facts, limit) }
    }

    /// Whether it may have refused this request.
    fn is_good(&self, facts: &Facts<'_>, ask: &Ask) -> bool {
        self.taken(facts, ask) + self.limit.metric.of(ask.most) > self.room()
    }

    /// How much there is at once.
    fn room(&self) -> u64 {
        match self.limit.algorithm {
            Algorithm::Bucket { burst, .. } => burst,
            _ => self.limit.limit,
        }
    }

    /// The most that may count against this request.
    fn taken(&self, facts: &Facts<'_>, ask: &Ask) -> u64 {
        let from = ask.sent.saturating_sub(facts.history.patience.memory);
        match self.limit.algorithm {
            Algorithm::Permits => self.holds.most(from, ask.over),
            Algorithm::Budget => self.sum(0, from, ask.over),
            Algorithm::Window { length, slots } => {
                let longest = length + length / slots + length / 1000;
                self.sum(from.saturating_sub(longest), from, ask.over)
            }
            Algorithm::Bucket { window, .. } => self.level(window, from, ask.over),
        }
    }

    /// All that may have been taken from `start` until `end`; settled at `at` or not.
    fn sum(&self, start: Micros, at: Micros, end: Micros) -> u64 {
        let first = self.latest.partition_point(|latest| *latest < start);
        let within = self.charges[first..].iter().take_while(|charge| charge.lo <= end);
        within.filter(|charge| charge.late >= start).map(|charge| charge.maybe_at(at)).sum()
    }

    /// The most that a bucket may hold: the worst of all beginnings.
    fn level(&self, window: Micros, at: Micros, end: Micros) -> u64 {
        let before = self.charges.partition_point(|charge| charge.lo <= end);
        // Each of them as late as possible, but none so late that what came before flows back
        // beyond the earliest moment of the refusal.
        let charges = self.charges[..before].iter();
        // As much as was reserved: what has flowed out in its turn need not be given back.
        let mut late: Vec<_> = charges.map(|it| (it.late.min(at), it.maybe)).collect();
        late.sort_unstable();
        let (mut level, mut last) = (0_i128, 0);
        for (when, amount) in late {
            let flowed = i128::from(when - last) * i128::from(self.limit.limit);
            level = (level - flowed).max(0) + i128::from(amount) * i128::from(window);
            last = when;
        }
        let flowed = i128::from(at.saturating_sub(last)) * i128::from(self.limit.limit);
        let level = (level - flowed).max(0);
        u64::try_from((level + i128::from(window) - 1) / i128::from(window)).unwrap_or(u64::MAX)
    }
}

/// What a limit let through while it refused all the time.
struct Saturated {
    time: Micros,
    window: Micros,
    slots: u64,
    /// The longest time without a refusal.
    gap: Micros,
    /// What may have been taken, and what it was in the end.
    taken: u64,
    settled: u64,
    limit: u64,
    /// The largest demand.
    demand: u64,
    from: Micros,
    asks: Vec<usize>,
}

impl Saturated {
    fn share(&self) -> f64 {
        self.settled as f64 * self.window as f64 / (self.limit as f64 * self.time as f64)
    }

    /// In each window, one slot longer and as long again as nobody was refused, the limit is used
    /// up but for less than one demand.
    fn violation(&self, limit: &Limit) -> Option<Violation> {
        let round = self.window + self.window / self.slots + self.gap;
        let least = (self.limit.saturating_sub(self.demand - 1)) * (self.time / round);
        (self.taken < least).then(|| {
            let what = format!(
                "only {} were taken under saturating demand, where at least {least} are promised",
                self.taken
            );
            let until = self.from + self.time;
            Violation::new(&limit.name, what, self.from, until, self.asks.clone())
        })
    }
}

/// The longest calm stretch in which a window's limit refused again and again; none where there is
/// none of three windows.
fn saturated(
    facts: &Facts<'_>,
    limit: &Limit,
    charges: &[Charge],
    refused: &[&Ask],
) -> Option<Saturated> {
    let Algorithm::Window { length: window, slots } = limit.algorithm else { return None };
    let mut refused: Vec<_> = refused.iter().map(|ask| (ask.sent, ask.over, ask.node)).collect();
    refused.sort_unstable();
    let mut best: Option<(Micros, Micros, Micros)> = None;
    let mut stretch: Option<(Micros, Micros, Micros)> = None;
    for (sent, over, node) in refused {
        if facts.trouble(node, sent.saturating_sub(window), over).is_some() {
            stretch = None;
            continue;
        }
        stretch = match stretch {
            Some((from, last, gap)) if sent.saturating_sub(last) <= window / 2 => {
                Some((from, over.max(last), gap.max(over.saturating_sub(last))))
            }
            _ => Some((over, over, 0)),
        };
        let longer = |(from, until, _): (Micros, Micros, Micros)| until.saturating_sub(from);
        if stretch.map(longer) > best.map(longer) {
            best = stretch;
        }
    }
    let (from, until, gap) = best.filter(|(from, until, _)| until - from >= 3 * window)?;
    // What may have been taken in it counts as taken.
    let within = charges.iter().filter(|it| from <= it.hi && it.lo <= until);
    let (mut taken, mut settled, mut asks, mut demand) = (0, 0, Vec::new(), 1);
    for charge in within {
        taken += charge.maybe;
        settled += charge.maybe_at(Micros::MAX);
        asks.push(charge.ask);
        demand = demand.max(charge.maybe);
    }
    let limit = limit.limit;
    let time = until - from;
    Some(Saturated { time, window, slots, gap, taken, settled, limit, demand, from, asks })
}
