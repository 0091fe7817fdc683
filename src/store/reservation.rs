//! What an attempt has taken, as guards: whatever ends it, it is settled once.
//!
//! Money and tokens are held by the `Reservation` of an attempt, permits of a request by `Permits`,
//! which outlives its attempts. A request's permits are released under the id of an attempt 0 that
//! no attempt has, so that no member is mistaken for settled.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::degraded::{Alone, Aside};
use super::ledger::{Entry, Haste};
use super::limiter::Inner;
use super::link::{Away, Commands, Silent};
use super::{HOUR_MS, Store};
use crate::domain::AttemptId;
use crate::policy::limit::{
    Admit, Algorithm, Charge, Counts, Holder, Metric, Origin, Row, Settle, TopUp, Verdict,
};

/// What an attempt really used, or is to have more of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Micro-USD.
    pub cost_micro_usd: u64,
}

/// Whether a stream may go on beyond what it had reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topped {
    /// There is more.
    Yes,
    /// There is not. What it uses from here on is a debt.
    Refused {
        /// Whether the limit says that the stream ends.
        hard: bool,
    },
}

/// What an attempt has taken of its limits. Dropped unsettled, it is settled as reserved.
#[derive(Debug)]
#[must_use = "dropping it settles it as reserved"]
pub struct Reservation {
    inner: Rc<Inner>,
    admits: Arc<[Admit]>,
    left: Vec<Vec<u64>>,
    /// Empty once it is settled.
    parts: SmallVec<[Part; 2]>,
    permits: Option<Permits>,
    /// A limit that ends no stream has refused: only those that do are asked for more.
    only_hard: bool,
}

/// The permits of a request. They are released when this is dropped.
#[derive(Debug)]
#[must_use = "dropping them releases them"]
pub struct Permits {
    store: Arc<Store>,
    admits: Arc<[Admit]>,
    /// What the node's own twin has given of them.
    asides: SmallVec<[Admit; 1]>,
}

/// What is held on one tag.
#[derive(Clone, Debug)]
pub(super) struct Part {
    state: Held,
    topped: Used,
    steps: u8,
    /// What was topped up in the node's own twin, though the tag itself has admitted it.
    beside: Used,
    /// Whether the tag knows nothing of it, and never will.
    unasked: bool,
    /// What of it is held in the node's own twin, because the tag did not answer.
    aside: Option<Box<Aside>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing.
    Nothing,
    /// All of it, so far as the tag is concerned taken in this way.
    All(Origin),
    /// All or nothing: the tag did not answer.
    Unknown,
}

/// What is said at the end.
#[derive(Clone, Copy)]
enum Truth {
    /// What was reserved.
    AsReserved,
    /// This.
    Used(Used),
    /// Nothing was sent.
    Nothing,
}

// === impl Used ===

impl Used {
    /// How much of what this metric counts.
    fn of(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Tokens => self.input_tokens.saturating_add(self.output_tokens),
            Metric::InputTokens => self.input_tokens,
            Metric::OutputTokens => self.output_tokens,
            Metric::Cost => self.cost_micro_usd,
            Metric::Requests | Metric::Concurrency => 0,
        }
    }

    fn add(&mut self, more: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
        self.cost_micro_usd = self.cost_micro_usd.saturating_add(more.cost_micro_usd);
    }
}

// === impl Reservation ===

impl Reservation {
    pub(super) fn new(
        inner: Rc<Inner>,
        admits: Arc<[Admit]>,
        left: Vec<Vec<u64>>,
        parts: SmallVec<[Part; 2]>,
    ) -> Self {
        let holds = admits.iter().any(|admit| admit.charges.iter().any(is_of_request));
        let permits = holds.then(|| Permits::new(&inner.store, &admits, &parts));
        if let Some(admit) = admits.first() {
            inner.store.opened(admit.id, &admits, parts.iter().any(|part| !part.unasked));
            inner.store.metrics.opened();
        }
        for (admit, part) in admits.iter().zip(&parts) {
            let permits = |charge: &Charge| charge.metric == Metric::Concurrency;
            if part.state == Held::All(Origin::Elsewhere) && admit.charges.iter().any(permits) {
                inner.store.unregistered(&admit.tag);
            }
        }
        Self { inner, admits, left, parts, permits, only_hard: false }
    }

    /// What was asked for.
    #[must_use]
    pub fn admits(&self) -> &[Admit] {
        &self.admits
    }

    /// What is left of each limit, in the order of admits and charges; nothing for an admit whose
    /// answer was lost or that was not asked.
    #[must_use]
    pub fn left(&self) -> &[Vec<u64>] {
        &self.left
    }

    /// The permits of the request, once. Left here, they are released with the reservation.
    pub fn take_permits(&mut self) -> Option<Permits> {
        self.permits.take()
    }

    /// Reserves more, because the attempt outruns what it has: of each limit what it counts of
    /// `more`. A tag that refuses leaves what others gave. A limit that ends no stream and refuses is
    /// no shelter from one that does: those are asked alone then, and from there on.
    ///
    /// # Cancellation
    /// Safe: a step that was asked for and not answered is asked for again under its number.
    pub async fn top_up(&mut self, more: Used) -> Topped {
        let mut topped = Topped::Yes;
        let mut only_hard = self.only_hard;
        for (admit, part) in self.admits.iter().zip(&mut self.parts) {
            if !part.is_held() {
                continue;
            }
            loop {
                let is_asked = |charge: &Charge| with(charge, more, only_hard).amount > 0;
                if !admit.charges.iter().any(is_asked) {
                    break;
                }
                // What one tag has given in part, and the twin in part, goes on in the twin.
                let of_tag = part.state == Held::All(Origin::Member) && part.aside.is_none();
                let asked = if of_tag && admit.member {
                    part.top_up(&self.inner, admit, more, only_hard).await
                } else {
                    Err(Away)
                };
                let refused = match (asked, self.inner.store.alone()) {
                    (Ok(refused), _) => refused,
                    (Err(Away), Some(alone)) => part.top_up_alone(alone, admit, more, only_hard),
                    (Err(Away), None) => None,
                };
                let Some(charge) = refused else { break };
                if admit.charges.get(charge).is_some_and(|charge| charge.hard) {
                    topped = Topped::Refused { hard: true };
                } else if !only_hard {
                    only_hard = true;
                    continue;
                }
                break;
            }
        }
        let mut charges = self.admits.iter().flat_map(|admit| &admit.charges);
        let hard = charges.any(|charge| charge.hard && more.of(charge.metric) > 0);
        self.only_hard = only_hard && hard;
        if only_hard && !hard {
            return Topped::Refused { hard: false };
        }
        topped
    }

    /// Says what was used. Never waits, so that it can be called from a guard. `usage` is added on
    /// the tag whose admit has a bill, or on the first one.
    pub fn settle(mut self, used: Used, usage: Option<(Row, Counts)>) {
        self.finish(Truth::Used(used), usage);
    }

    /// The same, and waits a bounded time until it is in force: what this attempt gives back may
    /// be what the next one needs.
    pub async fn settle_now(mut self, used: Used, usage: Option<(Row, Counts)>) {
        self.finish(Truth::Used(used), usage);
        for admit in self.admits.iter() {
            self.inner.store.flushed(&admit.tag).await;
        }
    }

    /// Nothing was sent: all of it is given back, requests too.
    pub fn cancel(mut self) {
        self.finish(Truth::Nothing, None);
    }

    fn finish(&mut self, truth: Truth, usage: Option<(Row, Counts)>) {
        if self.parts.is_empty() {
            return;
        }
        let parts = std::mem::take(&mut self.parts);
        let known = self.admits.first().is_none_or(|admit| self.inner.store.closed(admit.id));
        settle(&self.inner.store, &self.admits, &parts, truth, usage, known);
        self.inner.store.metrics.closed();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.finish(Truth::AsReserved, None);
    }
}

// === impl Permits ===

impl Permits {
    fn new(store: &Arc<Store>, admits: &Arc<[Admit]>, parts: &[Part]) -> Self {
        if let Some(admit) = admits.first() {
            store.opened(of_request(admit), admits, parts.iter().any(|part| !part.unasked));
        }
        let asides = parts.iter().filter_map(|part| part.aside.as_ref());
        let asides = asides.map(|aside| aside.admit.clone());
        let asides = asides.filter(|admit| admit.charges.iter().any(is_of_request)).collect();
        Self { store: Arc::clone(store), admits: Arc::clone(admits), asides }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        let known = self.admits.first().is_none_or(|admit| self.store.closed(of_request(admit)));
        for (alone, admit) in self
            .store
            .alone()
            .into_iter()
            .flat_map(|alone| self.asides.iter().map(move |admit| (alone, admit)))
        {
            alone.release(admit, of_request(admit), is_of_request);
        }
        // What the store never heard of need not be released there.
        let admits = self.admits.iter().filter(|_| known);
        for admit in admits.filter(|admit| admit.charges.iter().any(is_of_request)) {
            let released = |charge: &Charge| Charge { amount: 0, ..*charge };
            let charges = admit.charges.iter().filter(|charge| is_of_request(charge));
            let settle = Settle {
                id: of_request(admit),
                scopes: admit.scopes.clone(),
                charges: charges.map(released).collect(),
                origin: Origin::Member,
            };
            let tag = Arc::clone(&admit.tag);
            let entry = Entry { tag, settle: Some(settle), usage: None };
            self.store.post(entry, Haste::Release);
        }
    }
}

// === impl Part ===

impl Part {
    /// Taken.
    pub(super) fn held(origin: Origin) -> Self {
        Self::of(Held::All(origin))
    }

    /// Taken without the tag, and this much of it from the node's own twin.
    pub(super) fn elsewhere(aside: Option<Aside>, silent: Silent) -> Self {
        let unasked = silent == Silent::Unasked;
        Self { unasked, aside: aside.map(Box::new), ..Self::held(Origin::Elsewhere) }
    }

    /// Nothing was taken.
    pub(super) fn none() -> Self {
        Self::of(Held::Nothing)
    }

    /// The tag was asked and did not answer.
    pub(super) fn unknown() -> Self {
        Self::of(Held::Unknown)
    }

    fn of(state: Held) -> Self {
        Self {
            state,
            topped: Used::default(),
            steps: 0,
            beside: Used::default(),
            unasked: false,
            aside: None,
        }
    }

    /// Whether it is surely taken.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, Held::All(_))
    }

    /// How much of this charge was reserved.
    fn reserved(&self, charge: &Charge) -> u64 {
        charge.amount.saturating_add(self.topped.of(charge.metric))
    }

    /// Asks the tag for more. Answers the charge that was refused, if one was.
    async fn top_up(
        &mut self,
        inner: &Inner,
        admit: &Admit,
        more: Used,
        only_hard: bool,
    ) -> Result<Option<usize>, Away> {
        let mut command = TopUp {
            tag: Arc::clone(&admit.tag),
            id: admit.id,
            step: self.steps.saturating_add(1),
            scopes: admit.scopes.clone(),
            charges: admit.charges.iter().map(|charge| with(charge, more, only_hard)).collect(),
        };
        let mut verdict = inner.link.top_up(&command).await?;
        if verdict == Verdict::StalePeriod {
            // The budget's period is over. What is used from now on is charged to the one that
            // follows when the attempt is settled.
            leave_out(&mut command, is_of_budget);
            verdict = inner.link.top_up(&command).await?;
        }
        match verdict {
            Verdict::Admitted(_) => {
                self.steps = self.steps.saturating_add(1);
                self.topped.add(&more);
                Ok(None)
            }
            // An earlier try of this step went through after all; its answer was lost.
            Verdict::Duplicate => {
                self.steps = self.steps.saturating_add(1);
                Ok(None)
            }
            Verdict::Refused(refusal) => Ok(Some(refusal.charge)),
            Verdict::StalePeriod => Ok(None),
            Verdict::Late => Err(Away),
        }
    }

    /// Takes more of this node's shares.
    fn top_up_alone(
        &mut self,
        alone: &Alone,
        admit: &Admit,
        more: Used,
        only_hard: bool,
    ) -> Option<usize> {
        let mut aside = self.aside.take().map(|aside| *aside);
        let refused =
            alone.top_up(admit, &mut aside, |charge| with(charge, more, only_hard).amount);
        let refused = refused.err();
        self.aside = aside.map(Box::new);
        match (refused, self.state) {
            (None, Held::All(Origin::Elsewhere)) => self.topped.add(&more),
            (None, _) => self.beside.add(&more),
            (Some(_), _) => {}
        }
        refused
    }
}

/// Gives everything back, permits of requests too.
pub(super) fn cancel(store: &Store, admits: &[Admit], parts: &[Part]) {
    for (admit, part) in admits.iter().zip(parts) {
        let (origin, haste) = match part.state {
            Held::Nothing => continue,
            // What may be taken there all the same is taken back as unknown.
            Held::All(Origin::Elsewhere) => {
                if let Some((alone, aside)) = store.alone().zip(part.aside.as_ref()) {
                    alone.settle(aside, |_| 0);
                }
                continue;
            }
            Held::All(origin) => (origin, Haste::Release),
            Held::Unknown => (Origin::Member, Haste::GivenUp),
        };
        let charges = admit.charges.iter().map(|charge| Charge { amount: 0, ..*charge });
        let settle = Settle {
            id: admit.id,
            scopes: admit.scopes.clone(),
            charges: charges.collect(),
            origin,
        };
        let tag = Arc::clone(&admit.tag);
        store.post(Entry { tag, settle: Some(settle), usage: None }, haste);
    }
}

fn settle(
    store: &Store,
    admits: &[Admit],
    parts: &[Part],
    truth: Truth,
    mut usage: Option<(Row, Counts)>,
    known: bool,
) {
    let billed = admits.iter().position(|admit| admit.bill.is_some()).unwrap_or(0);
    for (place, (admit, part)) in admits.iter().zip(parts).enumerate() {
        let usage = if place == billed { usage.take() } else { None };
        let usage = usage.map(|(row, counts)| (store.now_ms() / HOUR_MS, row, counts));
        let mut settle = truth.of(admit, part);
        if let Some((alone, aside)) = store.alone().zip(part.aside.as_ref()) {
            let used = |place| settle.as_ref().and_then(|settle| settle.charges.get(place));
            alone.settle(aside, |place| {
                let charge = admit.charges.get(place);
                // What the tag itself has given is not the twin's.
                let theirs = charge.filter(|_| part.state == Held::All(Origin::Member));
                let theirs = theirs.map_or(0, |charge| part.reserved(charge));
                used(place).map_or(0, |charge: &Charge| charge.amount.saturating_sub(theirs))
            });
        }
        if !known && let Some(settle) = &mut settle {
            // Permits that the store never heard of need not be released there.
            for permit in settle.charges.iter_mut().filter(|charge| is_of_attempt(charge)) {
                permit.amount = 1;
            }
        }
        if settle.is_none() && usage.is_none() {
            continue;
        }
        let permits = admit.charges.iter().any(is_of_attempt);
        let haste = if permits { Haste::Release } else { Haste::Settle };
        store.post(Entry { tag: Arc::clone(&admit.tag), settle, usage }, haste);
    }
}

impl Truth {
    /// What is to be told to the tag of this admit, if anything.
    fn of(self, admit: &Admit, part: &Part) -> Option<Settle> {
        let origin = match part.state {
            Held::Nothing => return None,
            Held::All(origin) => origin,
            // Taken back by `cancel` as soon as it was known to be unknown.
            Held::Unknown => return None,
        };
        let permits = admit.charges.iter().any(is_of_attempt);
        let counts = origin == Origin::Elsewhere;
        if !admit.member && !permits && !counts {
            return None;
        }
        let amount = |charge: &Charge| match (self, charge.metric) {
            (_, Metric::Concurrency) => u64::from(charge.holder == Holder::Request),
            (Self::Nothing, _) => 0,
            (_, Metric::Requests) => charge.amount,
            (Self::AsReserved, metric) => {
                part.reserved(charge).saturating_add(part.beside.of(metric))
            }
            (Self::Used(used), metric) => used.of(metric),
        };
        let charges =
            admit.charges.iter().map(|charge| Charge { amount: amount(charge), ..*charge });
        let (scopes, charges) = (admit.scopes.clone(), charges.collect());
        Some(Settle { id: admit.id, scopes, charges, origin })
    }
}

/// The charge of a top-up; of nothing where only hard limits are still asked and it is a soft one.
fn with(charge: &Charge, more: Used, only_hard: bool) -> Charge {
    let amount = if only_hard && !charge.hard { 0 } else { more.of(charge.metric) };
    Charge { amount, ..*charge }
}

/// Asks for nothing of these.
fn leave_out(command: &mut TopUp, which: impl Fn(&Charge) -> bool) {
    command.charges.iter_mut().filter(|one| which(one)).for_each(|one| one.amount = 0);
}

fn is_of_budget(charge: &Charge) -> bool {
    matches!(charge.rule.algorithm, Algorithm::Budget { .. })
}

/// The id that stands for the request itself.
fn of_request(admit: &Admit) -> AttemptId {
    AttemptId { attempt: 0, ..admit.id }
}

fn is_of_request(charge: &Charge) -> bool {
    charge.metric == Metric::Concurrency && charge.holder == Holder::Request
}

fn is_of_attempt(charge: &Charge) -> bool {
    charge.metric == Metric::Concurrency && charge.holder == Holder::Attempt
}
