//! The guard of one attempt: what it used is settled when it is dropped, whatever ended it.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use actix_http::header::HeaderMap;

use super::{Account, OK, Tally, dropped, milliseconds};
use crate::domain::{Headers, RequestId, Usage};
use crate::policy::estimate::{self, Ask};
use crate::policy::limit::{Counts, Row};
use crate::provider::Endpoint;
use crate::proxy::shared::Shared;
use crate::proxy::spans;
use crate::proxy::tap::Tap;
use crate::snapshot::Target;
use crate::store::{Limiter, Reservation, Topped, Used};
use crate::telemetry::AttemptSpan;

/// One attempt at one target, from before it is sent until its answer has passed by.
#[derive(Debug)]
pub(in crate::proxy) struct Trial {
    shared: Arc<Shared>,
    limiter: Limiter,
    id: RequestId,
    endpoint: Endpoint,
    pub(in crate::proxy) target: Arc<Target>,
    started: Instant,
    input_bytes: u64,
    /// What the answer brought so far.
    pub(in crate::proxy) tap: Option<Tap>,
    outcome: Option<&'static str>,
    charged: bool,
    tally: Rc<Tally>,
    span: Option<Box<AttemptSpan>>,
    /// Whose usage it is.
    tenant: Arc<str>,
    row: Row,
    /// What its limits hold for it.
    reservation: Option<Reservation>,
    asked: Option<Asked>,
    /// The answer's tokens that are paid for in advance: once more have been seen, more is taken.
    paid: u64,
}

/// What a trial is about.
pub(in crate::proxy) struct Begin<'a> {
    pub(in crate::proxy) target: &'a Arc<Target>,
    /// Bytes of the request as it is sent.
    pub(in crate::proxy) input_bytes: u64,
    pub(in crate::proxy) row: Row,
    pub(in crate::proxy) admitted: Option<Admitted>,
}

/// What an attempt was admitted with.
#[derive(Debug)]
pub(in crate::proxy) struct Admitted {
    pub(in crate::proxy) reservation: Reservation,
    /// What the estimate was made from.
    pub(in crate::proxy) asked: Asked,
    /// The answer's tokens that were reserved.
    pub(in crate::proxy) output_tokens: u64,
}

/// What is known of a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Asked {
    /// Bytes of text in the client's body; 0 where it is not text.
    pub(in crate::proxy) prompt_bytes: u64,
    /// The most tokens that the client allows for each choice.
    pub(in crate::proxy) max_tokens: Option<u64>,
    pub(in crate::proxy) choices: u32,
    /// Whether it is answered with text.
    pub(in crate::proxy) text: bool,
}

impl Asked {
    /// The question to the estimator, for this model upstream.
    pub(in crate::proxy) fn of(self, model: &str) -> Ask<'_> {
        let Self { prompt_bytes, max_tokens, choices, text } = self;
        Ask { model, prompt_bytes, max_tokens, choices, text }
    }
}

impl Trial {
    pub(super) fn begin(account: &Account, begin: Begin<'_>) -> Self {
        let Begin { target, input_bytes, row, admitted } = begin;
        let (reservation, asked, paid) = match admitted {
            Some(Admitted { reservation, asked, output_tokens }) => {
                (Some(reservation), Some(asked), output_tokens)
            }
            None => (None, None, u64::MAX),
        };
        Self {
            shared: Arc::clone(&account.shared),
            limiter: account.limiter.clone(),
            id: account.id,
            endpoint: account.endpoint,
            target: Arc::clone(target),
            started: Instant::now(),
            input_bytes,
            tap: None,
            outcome: None,
            charged: true,
            tally: Rc::clone(&account.tally),
            span: account.span.as_ref().map(|span| span.attempt(account.attempts)),
            tenant: account.tenant_tag(),
            row,
            reservation,
            asked,
            paid,
        }
    }

    /// Whether more of the answer has been seen than is paid for.
    pub(in crate::proxy) fn outruns(&self) -> bool {
        self.paid < u64::MAX && self.seen_tokens() > self.paid
    }

    /// Takes more for an answer that outruns what is paid for. False where a limit that says `hard`
    /// refused; one that does not is not asked again, and what is over is its debt.
    pub(in crate::proxy) async fn top_up(&mut self) -> bool {
        let seen = self.seen_tokens();
        let more = estimate::top_up(self.paid).max(seen.saturating_sub(self.paid));
        let used = self.used(Usage { output_tokens: more, ..Usage::default() });
        let Some(reservation) = &mut self.reservation else { return true };
        match reservation.top_up(used).await {
            Topped::Yes => {
                self.paid = self.paid.saturating_add(more);
                true
            }
            Topped::Refused { hard } => {
                self.paid = u64::MAX;
                !hard
            }
        }
    }

    fn seen_tokens(&self) -> u64 {
        let seen = self.tap.as_ref().filter(|_| self.endpoint.answers_with_text());
        Usage::estimate(0, seen.map_or(0, Tap::text_bytes)).output_tokens
    }

    fn used(&self, usage: Usage) -> Used {
        let Usage { input_tokens, output_tokens, .. } = usage;
        let price = self.target.price;
        let cost_micro_usd = price.map_or(0, |price| price.cost(input_tokens, output_tokens));
        Used { input_tokens, output_tokens, cost_micro_usd }
    }

    /// Learns from a provider's own figures, for the estimates to come.
    fn learn(&self, usage: Usage) {
        let Some(asked) = self.asked.filter(|_| self.outcome == Some(OK)) else { return };
        let model = self.target.model.as_ref().unwrap_or(&self.row.model);
        let estimates = &self.shared.estimates;
        let mut estimates = estimates.lock().unwrap_or_else(PoisonError::into_inner);
        estimates.observe(&asked.of(model), &usage);
    }

    /// Hands in what was used: the limits are corrected, and the usage is recorded.
    fn settle(&mut self, usage: Usage) {
        let used = self.used(usage);
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let counts = Counts {
            attempts: 1,
            input_tokens: signed(usage.input_tokens),
            output_tokens: signed(usage.output_tokens),
            cached_tokens: signed(usage.cached_tokens),
            reasoning_tokens: signed(usage.reasoning_tokens),
            cost_micro_usd: signed(used.cost_micro_usd),
            estimated: i64::from(usage.estimated),
            ..Counts::default()
        };
        match self.reservation.take() {
            Some(reservation) => reservation.settle(used, Some((self.row.clone(), counts))),
            // It goes to the store with the request itself, unless another attempt follows.
            None => {
                if let Some((row, counts)) =
                    self.tally.last.replace(Some((self.row.clone(), counts)))
                {
                    self.limiter.record(Arc::clone(&self.tenant), row, counts);
                }
            }
        }
    }

    /// Records how the attempt ended. `charged` says whether the provider may have worked for it
    /// although it gave no figures, so that an estimate must stand for them.
    pub(in crate::proxy) fn end(&mut self, outcome: &'static str, charged: bool) {
        self.outcome = Some(outcome);
        self.charged = charged;
    }

    /// Tells the provider which trace this attempt belongs to.
    pub(in crate::proxy) fn pass_trace(&self, caller: &HeaderMap, to: &mut Headers) {
        self.shared.traces.pass_on(self.span.as_deref(), self.id, caller, to);
    }

    /// Notes the status of the provider's answer.
    pub(in crate::proxy) fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.answered(status);
        }
    }

    /// Records the time from the attempt's start to its first content.
    pub(in crate::proxy) fn first_content(&mut self) {
        let elapsed = self.started.elapsed();
        self.shared.metrics.first_token(&self.target.name, elapsed.as_secs_f64());
        if let Some(span) = &mut self.span {
            span.first_content(elapsed);
        }
    }

    fn usage(&self) -> Usage {
        let seen = self.tap.as_ref();
        if let Some(usage) = seen.and_then(Tap::usage) {
            return usage;
        }
        if !self.charged {
            return Usage::default();
        }
        let input = if self.endpoint.asks_with_text() { self.input_bytes } else { 0 };
        let output = seen.filter(|_| self.endpoint.answers_with_text());
        Usage::estimate(input, output.map_or(0, Tap::text_bytes))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let usage = self.usage();
        self.learn(usage);
        self.settle(usage);
        let metrics = &self.shared.metrics;
        let outcome = self.outcome.unwrap_or_else(|| dropped(&self.shared));
        // Whoever sees that the attempt is over finds what it used.
        metrics.tokens(&self.target.name, &usage);
        metrics.attempt(&self.target.name, outcome, self.started.elapsed().as_secs_f64());
        if outcome != OK {
            // Each of them, because a failover that worked shows nowhere else.
            tracing::info!(
                target: "flotilla::attempt",
                request_id = %self.id,
                target = &*self.target.name,
                outcome,
                duration_ms = milliseconds(self.started.elapsed()),
                "attempt failed"
            );
        }
        let before = self.tally.total.get();
        self.tally.total.set(Usage {
            input_tokens: before.input_tokens.saturating_add(usage.input_tokens),
            output_tokens: before.output_tokens.saturating_add(usage.output_tokens),
            cached_tokens: before.cached_tokens.saturating_add(usage.cached_tokens),
            reasoning_tokens: before.reasoning_tokens.saturating_add(usage.reasoning_tokens),
            estimated: before.estimated || usage.estimated,
        });
        if let Some(span) = self.span.take() {
            spans::end_attempt(*span, self.endpoint, &self.target, outcome, usage);
        }
    }
}
