//! What was seen of a run from outside: by the clients, by the wall, by who broke things, and by
//! who read the counters at the end. Nothing in it comes from inside a node.
//!
//! All times are microseconds of one monotonic clock since the run began.

use std::collections::BTreeMap;
use std::fmt;

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// So many seconds.
pub(crate) const SECOND: Micros = 1_000_000;

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Prompt tokens.
    pub(crate) input: u64,
    /// Answer tokens.
    pub(crate) output: u64,
    /// Micro-USD.
    pub(crate) cost: u64,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
    Cost,
    Concurrency,
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// At most the limit in any window of this length; under-admits as if it were a slot longer.
    Window { length: Micros, slots: u64 },
    /// The limit flows back in `window`, up to `burst` at once.
    Bucket { window: Micros, burst: u64 },
    /// At most the limit in a period that is longer than the run.
    Budget,
    /// At most the limit at the same time.
    Permits,
}

/// One counter: a limit for those whom it covers together.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    /// For people, and for the standings at the end.
    pub(crate) name: String,
    /// Whose requests it counts, by their `who`; empty: everyone's.
    pub(crate) covers: Vec<String>,
    pub(crate) metric: Metric,
    pub(crate) algorithm: Algorithm,
    pub(crate) limit: u64,
    /// How far beyond the limit it may go: 0 for one that is exact whatever happens.
    pub(crate) bound: u64,
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer: its status, the code of an error, and whether the body came to its end.
    Answered { status: u16, code: String, whole: bool },
    /// The client left.
    Left,
    /// The connection ended before there was an answer, or was refused.
    Broken,
}

/// What a client saw of one request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Its number; the wall finds it in the request.
    pub(crate) id: u64,
    /// Whose it is, for `Limit::covers`.
    pub(crate) who: String,
    /// Where its usage is recorded, for `Ending::rows`.
    pub(crate) row: String,
    /// The node that was asked.
    pub(crate) node: usize,
    /// Just before the first byte was sent.
    pub(crate) sent: Micros,
    /// Just after it was over.
    pub(crate) over: Micros,
    pub(crate) end: End,
    /// What is surely reserved for each of its attempts.
    pub(crate) least: Usage,
    /// What is reserved at most for each of its attempts.
    pub(crate) most: Usage,
}

/// What the wall saw of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// The request that it belongs to.
    pub(crate) ask: u64,
    /// When its head was in.
    pub(crate) at: Micros,
    /// Before its last byte left, or the last moment before it was seen to be given up.
    pub(crate) until: Micros,
    /// What it said it used.
    pub(crate) told: Usage,
    /// Whether all of the answer was sent.
    pub(crate) whole: bool,
}

/// What was done to the fleet, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: What,
    /// Before it began.
    pub(crate) from: Micros,
    /// After it had ended.
    pub(crate) until: Micros,
}

/// What can be done to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// This node was killed; `until` is when it served again.
    NodeKilled(usize),
    /// This node did not run.
    NodeStopped(usize),
    /// This node did not reach the store, or not in time.
    NodeCutOff(usize),
    /// No node reached the store, or not in time.
    StoreAway,
    /// The store lost what it knew.
    StoreEmptied,
    /// Something that nobody may notice, such as the loss of all scripts.
    Harmless,
}

/// A row of recorded usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) requests: u64,
    pub(crate) attempts: u64,
    pub(crate) usage: Usage,
    pub(crate) node_lost: u64,
}

/// What was read when everything had come to rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    /// Before it was read.
    pub(crate) from: Micros,
    /// After it was read.
    pub(crate) until: Micros,
    /// What is used of each limit, by its name.
    pub(crate) standings: BTreeMap<String, u64>,
    /// The usage that is recorded; none where it was not read.
    pub(crate) rows: Option<BTreeMap<String, Recorded>>,
}

/// How long things may take that are promised to happen soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Permits of a dead node.
    pub(crate) lease: Micros,
    /// From the end of a request until its permits are back.
    pub(crate) release: Micros,
    /// From the end of a request until it is settled.
    pub(crate) settle: Micros,
    /// How long a refusal may be repeated without asking.
    pub(crate) memory: Micros,
    /// From the end of a fault until nothing of it is felt.
    pub(crate) recovery: Micros,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            lease: 10 * SECOND,
            release: SECOND,
            settle: 2 * SECOND,
            memory: SECOND / 4,
            recovery: 5 * SECOND,
        }
    }
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// What makes the run again.
    pub(crate) seed: u64,
    pub(crate) limits: Vec<Limit>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) ending: Option<Ending>,
    pub(crate) patience: Patience,
}

impl Usage {
    /// The sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            input: self.input + other.input,
            output: self.output + other.output,
            cost: self.cost + other.cost,
        }
    }

    /// The larger of both in everything.
    pub(crate) fn or_more(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cost: self.cost.max(other.cost),
        }
    }
}

impl Metric {
    /// How much of a limit this usage is.
    pub(crate) fn of(self, usage: Usage) -> u64 {
        match self {
            Self::Requests | Self::Concurrency => 1,
            Self::Tokens => usage.input + usage.output,
            Self::InputTokens => usage.input,
            Self::OutputTokens => usage.output,
            Self::Cost => usage.cost,
        }
    }

    /// Whether it counts once for each request, whatever its attempts.
    pub(crate) fn by_request(self) -> bool {
        matches!(self, Self::Requests | Self::Concurrency)
    }
}

impl Limit {
    /// Whether this request counts.
    pub(crate) fn covers(&self, ask: &Ask) -> bool {
        self.covers.is_empty() || self.covers.contains(&ask.who)
    }

    /// The code with which it refuses.
    pub(crate) fn code(&self) -> &'static str {
        match (self.algorithm, self.metric) {
            (Algorithm::Budget, _) => "budget_exceeded",
            (_, Metric::Requests) => "rate_limited",
            (_, Metric::Concurrency) => "concurrency_limited",
            (_, Metric::Cost) => "cost_limited",
            (_, Metric::Tokens | Metric::InputTokens | Metric::OutputTokens) => "tokens_limited",
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, who, node, end, .. } = self;
        let (sent, over) = (Seconds(self.sent), Seconds(self.over));
        write!(f, "ask {id} of {who} at node {node}: {sent} .. {over} ")?;
        match end {
            End::Answered { status, code, whole } => {
                write!(f, "{status} {code}{}", if *whole { "" } else { ", broken off" })
            }
            End::Left => f.write_str("left"),
            End::Broken => f.write_str("no answer"),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { input, output, cost } = self.told;
        let (at, until) = (Seconds(self.at), Seconds(self.until));
        let whole = if self.whole { "" } else { ", given up" };
        write!(f, "wall {}: {at} .. {until} {input}+{output} tokens, {cost} uUSD{whole}", self.ask)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault: {} .. {} {:?}", Seconds(self.from), Seconds(self.until), self.what)
    }
}

/// A time for people.
pub(crate) struct Seconds(pub(crate) Micros);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / SECOND, self.0 % SECOND)
    }
}
