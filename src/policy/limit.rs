//! Limits as commands and answers: what a node asks of the state of a tag, over Redis and over the
//! twin alike.
//!
//! A *tag* is all that is decided together: one script on one Redis slot, or one entry of the twin.
//! Within a tag, a *scope* is one counter's owner (`tenant`, `key=acme-prod`), and holds the states
//! of the limits that count there.

pub mod bucket;
pub mod budget;
pub mod period;
pub mod permits;
pub mod place;
pub mod state;
pub mod twin;
pub mod window;

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::domain::AttemptId;

/// A limit's stable name in the state: the same wherever the limit stands in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(pub [u8; 8]);

impl LimitId {
    /// The id as text; the ids that `config` makes are ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// How a limit counts. Times in milliseconds; amounts in requests, tokens or micro-USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// At most the limit in any window of `slots * slot_ms`, counted in slots that leave one by one.
    Window {
        /// The width of a slot.
        slot_ms: u64,
        /// How many slots make the window, at least 1.
        slots: u32,
    },
    /// Refilled by the limit in each window, up to `burst`.
    Bucket {
        /// In this time the limit flows back.
        window_ms: u64,
        /// The most that is there at once.
        burst: u64,
    },
    /// At most the limit in the calendar period [start, end), Unix time.
    Budget {
        /// Where the period begins.
        start_ms: u64,
        /// Where the next one begins.
        end_ms: u64,
    },
    /// At most so many permits at the same time; each is a lease.
    Permits,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests.
    Requests,
    /// All tokens.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// Money, in micro-USD.
    Cost,
    /// Requests at the same time.
    Concurrency,
}

/// What holds while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// Each node admits its share.
    LocalShare,
    /// Nothing is admitted.
    FailClosed,
    /// Everything is admitted.
    FailOpen,
}

/// A limit as the state machines need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Under which id its state is kept.
    pub id: LimitId,
    /// How it counts.
    pub algorithm: Algorithm,
    /// How much; below 2^48.
    pub limit: u64,
}

/// Who holds a permit: the request with all of its attempts, or one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The request: the permit outlives its attempts.
    Request,
    /// One attempt.
    Attempt,
}

/// What one limit is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whose counter: an index into the command's `scopes`.
    pub scope: u8,
    /// The limit.
    pub rule: Rule,
    /// How much of it; 1 for a permit.
    pub amount: u64,
    /// Who holds it; matters for permits only.
    pub holder: Holder,
    /// What is counted.
    pub metric: Metric,
    /// What holds while the store does not answer. A budget's `LocalShare` is its signed credit.
    pub degraded: Degraded,
    /// Whether a stream that outruns it is ended.
    pub hard: bool,
}

/// One tag's part of an admission: all of its charges are taken, or none.
#[derive(Clone, Debug)]
pub struct Admit {
    /// Whose state.
    pub tag: Arc<str>,
    /// What it is taken for.
    pub id: AttemptId,
    /// The counters' owners within the tag, each once.
    pub scopes: Vec<Arc<str>>,
    /// What is asked of each limit.
    pub charges: Vec<Charge>,
    /// Whether the attempt stays a member of its tag until it is settled: it reserved something
    /// that will be corrected, or may be cancelled.
    pub member: bool,
    /// Where its usage belongs; given on the tenant's tag only, and only to members.
    pub bill: Option<Bill>,
}

/// A row of usage: the node adds the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// The key's name.
    pub key: Arc<str>,
    /// The pool's name.
    pub pool: Arc<str>,
    /// The target's name.
    pub target: Arc<str>,
    /// The model that the client asked for.
    pub model: Arc<str>,
}

impl Row {
    /// The row of what no row is left for: an hour of a tag has a bounded number of them.
    #[must_use]
    pub fn other() -> Self {
        Self { key: "other".into(), ..Self::default() }
    }
}

/// What is recorded of an attempt whose node dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Where.
    pub row: Row,
    /// What it was estimated to use.
    pub estimate: Counts,
}

/// Usage, as it is added up in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests; a request counts in the row of its last attempt.
    pub requests: i64,
    /// Attempts.
    pub attempts: i64,
    /// Prompt tokens, cached ones included.
    pub input_tokens: i64,
    /// Answer tokens, reasoning included.
    pub output_tokens: i64,
    /// Of the input: from the provider's cache.
    pub cached_tokens: i64,
    /// Of the output: spent on reasoning.
    pub reasoning_tokens: i64,
    /// Cost in micro-USD.
    pub cost_micro_usd: i64,
    /// Requests that ended in an error.
    pub errors: i64,
    /// Attempts whose usage is an estimate.
    pub estimated: i64,
    /// Attempts whose node died, so that their reservation stands for their usage.
    pub node_lost: i64,
}

impl Counts {
    /// Adds what another record holds.
    pub fn add(&mut self, more: &Self) {
        self.merge(more, i64::saturating_add);
    }

    /// Takes back what was added.
    pub fn take_back(&mut self, less: &Self) {
        self.merge(less, i64::saturating_sub);
    }

    /// What is recorded of an attempt whose node died, if this is its estimate.
    #[must_use]
    pub fn of_lost_node(&self) -> Self {
        Self { attempts: 1, estimated: 1, node_lost: 1, ..*self }
    }

    fn merge(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.requests = with(self.requests, other.requests);
        self.attempts = with(self.attempts, other.attempts);
        self.input_tokens = with(self.input_tokens, other.input_tokens);
        self.output_tokens = with(self.output_tokens, other.output_tokens);
        self.cached_tokens = with(self.cached_tokens, other.cached_tokens);
        self.reasoning_tokens = with(self.reasoning_tokens, other.reasoning_tokens);
        self.cost_micro_usd = with(self.cost_micro_usd, other.cost_micro_usd);
        self.errors = with(self.errors, other.errors);
        self.estimated = with(self.estimated, other.estimated);
        self.node_lost = with(self.node_lost, other.node_lost);
    }
}

/// The answer to an admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All charges are taken. For each, what is left of its limit.
    Admitted(Vec<u64>),
    /// This id was admitted before; nothing changed.
    Duplicate,
    /// One limit refused and nothing changed.
    Refused(Refusal),
    /// The command's deadline had passed; nothing changed.
    Late,
    /// The period of a budget is not the one that the store's clock is in; nothing changed.
    StalePeriod,
}

/// Why an admission was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The charge that did not fit: an index into the command's `charges`.
    pub charge: usize,
    /// In how many milliseconds the same demand fits at the earliest, if nothing else is admitted;
    /// none where that cannot be said (permits), or never comes (a demand above the limit).
    pub wait_ms: Option<u64>,
    /// What was left of it.
    pub left: u64,
}

/// Why an amount does not fit a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// In how many milliseconds the same amount fits at the earliest; none where that cannot be
    /// said, or never comes.
    pub wait_ms: Option<u64>,
    /// What is left of the limit.
    pub left: u64,
}

impl Misfit {
    /// What is left after `amount`, if it fits. A limit of 0 refuses even nothing.
    fn room(limit: u64, used: u64, amount: u64) -> Option<u64> {
        if limit == 0 { None } else { limit.checked_sub(used.saturating_add(amount)) }
    }
}

/// More of what a member has reserved, because it outruns its reservation.
#[derive(Clone, Debug)]
pub struct TopUp {
    /// Whose state.
    pub tag: Arc<str>,
    /// The member.
    pub id: AttemptId,
    /// Which top-up of this member, from 1: the same one is applied once.
    pub step: u8,
    /// As in its `Admit`.
    pub scopes: Vec<Arc<str>>,
    /// As in its `Admit`, in the same order, with what is added; zeros are left alone.
    pub charges: Vec<Charge>,
}

/// The truth about one attempt on one tag.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The member.
    pub id: AttemptId,
    /// As in its `Admit`.
    pub scopes: Vec<Arc<str>>,
    /// As in its `Admit`, in the same order, with what was really used. A permit with amount 0 is
    /// released, with amount 1 it stays.
    pub charges: Vec<Charge>,
    /// How it was admitted.
    pub origin: Origin,
}

/// How an attempt that is settled was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By this tag: what it reserved is corrected.
    Member,
    /// Elsewhere, while the tag could not be reached: all of it is charged now, over the limit if
    /// it must be.
    Elsewhere,
    /// By this tag, on a node that is lost: settled as reserved, if its lease has ended.
    Lapsed,
}

/// What a node tells a tag in one go: applied once, whole.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose state.
    pub tag: Arc<str>,
    /// The node's incarnation.
    pub incarnation: u64,
    /// Counts up for each batch of an incarnation and tag; one that is not above the last one
    /// applied changes nothing.
    pub number: u64,
    /// Attempts that are over.
    pub settles: Vec<Settle>,
    /// Usage to add: hour (Unix time in hours), row, and what.
    pub usage: Vec<(u64, Row, Counts)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All of it is in force now.
    Now,
    /// It was applied before, or a later one was; nothing changed.
    Before,
}

/// A member whose lease has ended.
#[derive(Clone, Debug)]
pub struct Lapsed {
    /// The member.
    pub id: AttemptId,
    /// As in its `Admit`.
    pub scopes: Vec<Arc<str>>,
    /// As in its `Admit`, with all that it reserved, top-ups included.
    pub charges: Vec<Charge>,
    /// Where its usage belongs.
    pub bill: Option<Bill>,
}

/// What holds on to its leases: a member, a permit, or both.
#[derive(Clone, Debug)]
pub struct Renew {
    /// Whose.
    pub id: AttemptId,
    /// As in its `Admit`; only permits are looked at.
    pub scopes: Vec<Arc<str>>,
    /// As in its `Admit`.
    pub charges: Vec<Charge>,
    /// Whether it is a member.
    pub member: bool,
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is used of it now: in its window, its bucket, its period, or as permits.
    pub used: u64,
}

// === impl LimitId ===

impl LimitId {
    /// The id of what has this name: 48 bits of its SHA-256 as base64url. Whoever compiles a
    /// configuration sees to it that no two names have the same.
    #[must_use]
    pub fn of(name: &str) -> Self {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        let bits =
            digest.as_ref().iter().take(6).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let digit = |place: usize| DIGITS[(bits >> (42 - 6 * place) & 63) as usize];
        Self(std::array::from_fn(digit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_name_is_the_start_of_its_hash() {
        // printf %s per-key-rpm | sha256sum | head -c 12 | xxd -r -p | base64 | tr +/ -_
        assert_eq!(&LimitId::of("per-key-rpm").0, b"rwO1H3Vo");
        assert_ne!(LimitId::of("a"), LimitId::of("b"));
    }
}
