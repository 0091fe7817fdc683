//! The verdict: everything that a history proves to be wrong, and how close it came.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::facts::Facts;
use super::history::{Algorithm, End, History, Micros, Seconds};
use super::{permits, refusals, settled, windows};

/// How many lines of a history explain a violation at most.
const LINES: usize = 60;

/// Something that is wrong whatever happened inside.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which promise: the name of a limit, or another word.
    pub(crate) of: String,
    /// What is wrong.
    pub(crate) what: String,
    from: Micros,
    until: Micros,
    /// The requests that prove it: indexes into the history's.
    asks: Vec<usize>,
}

/// How a limit did.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) limit: String,
    /// The most that was surely taken in any window, as a share of what is allowed there.
    pub(crate) fullest: f64,
    /// Requests that it refused.
    pub(crate) refusals: usize,
    /// Under saturating demand in calm times: what was taken as a share of the limit.
    pub(crate) saturated: Option<f64>,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    pub(crate) measured: Vec<Measured>,
    /// Of how many requests that were not refused the usage is surely known, and how many there are.
    pub(crate) certain: (usize, usize),
}

/// Judges a history.
pub(crate) fn check(history: &History) -> Report {
    let facts = Facts::of(history);
    let mut report = Report::default();
    report.violations.extend(unanswered(&facts));
    let grounds: Vec<_> =
        history.limits.iter().map(|it| refusals::Ground::of(&facts, it)).collect();
    for (at, limit) in history.limits.iter().enumerate() {
        let charges = &grounds[at].charges;
        let (mut fullest, mut wrong) = windows::judge(&facts, limit, charges);
        if limit.algorithm == Algorithm::Permits {
            (fullest, wrong) = permits::judge(&facts, limit);
        }
        report.violations.extend(wrong);
        let (refused, saturated, wrong) = refusals::judge(&facts, &grounds, at);
        report.violations.extend(wrong);
        report.violations.extend(settled::standing(&facts, limit, charges));
        let limit = limit.name.clone();
        report.measured.push(Measured { limit, fullest, refusals: refused, saturated });
    }
    report.violations.extend(refusals::groundless(&facts, &grounds));
    report.violations.extend(settled::rows(&facts));
    report.certain = settled::certain(&facts);
    report
}

/// In calm times every request is answered, and the store is there.
fn unanswered(facts: &Facts<'_>) -> Option<Violation> {
    let wrong = |ask: &&super::history::Ask| match &ask.end {
        End::Answered { code, .. } => code == "store_unavailable" || code == "config_stale",
        End::Broken => true,
        End::Left => false,
    };
    let asks: Vec<usize> = (facts.history.asks.iter().enumerate())
        .filter(|(_, ask)| wrong(ask))
        .filter(|(_, ask)| facts.trouble(ask.node, ask.sent, ask.over).is_none())
        .filter(|(_, ask)| facts.killed(ask.node, ask.sent, ask.over).is_none())
        .map(|(index, _)| index)
        .collect();
    let first = &facts.history.asks[*asks.first()?];
    let what = format!("{} requests failed while nothing was broken", asks.len());
    Some(Violation::new("answers", what, first.sent, first.over, asks))
}

/// How much of it that is.
pub(crate) fn share_of(taken: u64, allowed: u64) -> f64 {
    if allowed == 0 {
        return if taken == 0 { 0.0 } else { f64::INFINITY };
    }
    taken as f64 / allowed as f64
}

impl Violation {
    pub(crate) fn new(
        of: &str,
        what: String,
        from: Micros,
        until: Micros,
        asks: Vec<usize>,
    ) -> Self {
        Self { of: of.to_owned(), what, from, until, asks }
    }

    /// The smallest part of the history that shows it: the requests concerned, what the wall saw of
    /// them, and the faults around.
    pub(crate) fn explain(&self, history: &History) -> String {
        let facts = Facts::of(history);
        let mut text = format!(
            "{}: {}\n  between {} and {}\n",
            self.of,
            self.what,
            Seconds(self.from),
            Seconds(self.until)
        );
        let margin = history.patience.recovery;
        let around = history.faults.iter().filter(|fault| {
            fault.from <= self.until.saturating_add(margin)
                && self.from <= fault.until.saturating_add(margin)
        });
        let mut lines: Vec<(Micros, String)> = Vec::new();
        lines.extend(around.map(|fault| (fault.from, fault.to_string())));
        for index in self.asks.iter().collect::<BTreeSet<_>>() {
            let ask = &history.asks[*index];
            lines.push((ask.sent, ask.to_string()));
            let attempts = facts.attempts(ask).iter();
            lines.extend(attempts.map(|attempt| (attempt.at, attempt.to_string())));
        }
        lines.sort();
        let more = lines.len().saturating_sub(LINES);
        for (_, line) in lines.iter().take(LINES) {
            writeln!(text, "  {line}").expect("a text takes it");
        }
        if more > 0 {
            writeln!(text, "  and {more} more").expect("a text takes it");
        }
        text
    }
}

impl Report {
    /// Fails with everything that is wrong, and how to make it happen again.
    #[track_caller]
    pub(crate) fn assert_good(&self, history: &History) {
        let wrong: String = self.violations.iter().map(|it| it.explain(history)).collect();
        assert!(wrong.is_empty(), "seed {}:\n{wrong}\n{self}", history.seed);
    }

    /// What was said to be wrong, in short.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.violations.iter().map(|it| format!("{}: {}", it.of, it.what)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Measured { limit, fullest, refusals, saturated } in &self.measured {
            write!(f, "{limit:<24} fullest window {fullest:.3} of the limit, {refusals} refused")?;
            if let Some(share) = saturated {
                write!(f, ", {share:.3} of it under saturating demand")?;
            }
            f.write_str("\n")?;
        }
        let (certain, all) = self.certain;
        writeln!(f, "the usage of {certain} of {all} requests is surely known")
    }
}
