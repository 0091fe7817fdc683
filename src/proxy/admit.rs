//! Phase: ask all limits of an attempt at once, and take all of what it needs or nothing.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Exchange;
use super::demand::{self, Facts, Try};
use super::quota::Quota;
use super::settle::{Account, Admitted};
use super::unix_now_ms;
use crate::domain::{AttemptId, Code, Fault};
use crate::policy::limit::{Admit, Algorithm, Charge, Metric, Refusal, Row};
use crate::snapshot::{Dimension, Target};
use crate::store::Denied;

/// What a client over a limit of concurrency is told to wait: nobody knows when a permit is given
/// back.
const PERMIT_WAIT: Duration = Duration::from_secs(1);

/// An attempt that was not admitted.
#[derive(Debug)]
pub(super) struct Refused {
    /// What the client is told if no other target is free.
    pub(super) fault: Fault,
    /// Whether another target may be admitted: the limit counts by target, or by what it costs.
    pub(super) elsewhere: bool,
}

impl Exchange {
    /// Asks for all that an attempt at `target` needs. None where no limit applies.
    ///
    /// # Errors
    /// Which limit refused, as the client is to be told; then nothing is taken.
    ///
    /// # Cancellation
    /// What was taken when the future is dropped is given back by its guard.
    pub(super) async fn admit(
        &self,
        target: &Arc<Target>,
        account: &mut Account,
    ) -> Result<Option<Admitted>, Refused> {
        let limited = !self.key.limits.is_empty()
            || !target.limits.is_empty()
            || self.key.budget.is_some()
            || self.key.tenant.budget.is_some();
        if !limited {
            return Ok(None);
        }
        let (input_tokens, output_tokens) = self.estimate(target);
        let facts = Facts {
            key: &self.key,
            pool: &self.pool.name,
            model: &self.envelope.model,
            user: self.user.as_deref(),
            ip: self.client_ip,
            node: &self.worker.shared.node,
        };
        let attempt = Try {
            id: account.next_admission(),
            target,
            first: !account.was_admitted(),
            input_tokens,
            output_tokens,
            now_ms: unix_now_ms(),
        };
        let row = account.row(target);
        let admits = demand::admits(&facts, &attempt, &row);
        if admits.is_empty() {
            return Ok(None);
        }
        // The answer names a charge by its place.
        let asked = admits.clone();
        match self.worker.limiter.admit(admits).await {
            Ok(mut reservation) => {
                account.stands(Quota::admitted(reservation.admits(), reservation.left()));
                account.admitted(reservation.take_permits());
                Ok(Some(Admitted { reservation, output_tokens }))
            }
            Err(denied) => Err(self.refused(&denied, &asked, target, account)),
        }
    }

    fn refused(
        &self,
        denied: &Denied,
        asked: &[Admit],
        target: &Target,
        account: &mut Account,
    ) -> Refused {
        let (admit, charge, refusal) = match *denied {
            Denied::Refused { admit, refusal } => (admit, refusal.charge, Some(refusal)),
            Denied::Unavailable { admit, charge } => (admit, charge, None),
        };
        let charge = asked.get(admit).and_then(|admit| admit.charges.get(charge));
        let Some((charge, refusal)) = charge.zip(refusal) else {
            let message = "the store that counts this limit cannot be reached; retry soon";
            let fault = Fault::new(Code::StoreUnavailable, message).retry_after(PERMIT_WAIT);
            return Refused { fault, elsewhere: false };
        };
        account.stands(Quota::refused(charge, refusal));
        let limits = self.key.limits.iter().chain(&target.limits);
        let limit = limits.clone().find(|limit| limit.id == charge.rule.id);
        let name = limit.map_or("budget", |limit| &*limit.name);
        self.worker.shared.metrics.refused(name);
        let by_target = limit.is_some_and(|limit| limit.counts_attempts());
        let elsewhere = by_target || charge.metric == Metric::Cost;
        Refused { fault: fault(name, charge, refusal), elsewhere }
    }
}

impl Exchange {
    /// The tokens that an attempt at `target` is expected to use: of the request, of the answer.
    fn estimate(&self, target: &Target) -> (u64, u64) {
        let model = target.model.as_deref().unwrap_or(&self.envelope.model);
        let bytes = if self.endpoint.asks_with_text() { self.body.len() as u64 } else { 0 };
        let estimates = &self.worker.shared.estimates;
        let mut estimates = estimates.lock().unwrap_or_else(PoisonError::into_inner);
        let output = self.endpoint.answers_with_text().then_some(Output {
            most: self.envelope.max_tokens,
            choices: self.envelope.choices,
        });
        estimates.estimate(model, bytes, output)
    }
}

/// What a client is told of a limit that refused.
fn fault(name: &str, charge: &Charge, refusal: Refusal) -> Fault {
    let Charge { amount, rule, metric, .. } = *charge;
    let limit = rule.limit;
    let is_budget = matches!(rule.algorithm, Algorithm::Budget { .. });
    let whole = match rule.algorithm {
        Algorithm::Bucket { burst, .. } => burst,
        _ => limit,
    };
    let (code, what) = match metric {
        Metric::Cost if is_budget => (Code::BudgetExceeded, "micro-USD"),
        Metric::Requests => (Code::RateLimited, "requests"),
        Metric::Tokens => (Code::TokensLimited, "tokens"),
        Metric::InputTokens => (Code::TokensLimited, "input tokens"),
        Metric::OutputTokens => (Code::TokensLimited, "output tokens"),
        Metric::Cost => (Code::CostLimited, "micro-USD"),
        Metric::Concurrency => (Code::ConcurrencyLimited, "requests at the same time"),
    };
    if amount > whole && !is_budget {
        let message =
            format!("this request needs {amount} {what}; the limit {name} is {whole}: no retry helps");
        return Fault::new(Code::RequestExceedsLimit, message);
    }
    let message = format!(
        "over the limit {name} of {limit} {what}: {} left, {amount} needed",
        refusal.left
    );
    let fault = Fault::new(code, message);
    match (refusal.wait_ms, metric) {
        (Some(wait), _) => fault.retry_after(Duration::from_millis(wait)),
        (None, Metric::Concurrency) => fault.retry_after(PERMIT_WAIT),
        (None, _) => fault,
    }
}
