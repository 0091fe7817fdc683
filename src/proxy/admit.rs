//! Phase: ask all limits of an attempt at once, and take all of what it needs or nothing.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::attempt::Exchange;
use super::demand::{self, Facts, Try};
use super::quota::Quota;
use super::settle::{Account, Admitted, Asked};
use crate::domain::{Code, Fault};
use crate::policy::estimate::Tokens;
use crate::policy::limit::{Admit, Algorithm, Charge, Metric, Refusal};
use crate::snapshot::Target;
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
        let asked = self.asked();
        let Tokens { input: input_tokens, output: output_tokens } = self.estimate(asked, target);
        let facts = Facts {
            key: &self.key,
            pool: &self.pool.name,
            model: &self.envelope.model,
            user: self.user.as_deref(),
            ip: self.client_ip,
            node: &self.worker.shared.node,
        };
        let row = account.row(target);
        let mut now_ms = self.worker.shared.store.now_ms();
        let mut stale = false;
        loop {
            let attempt = Try {
                id: account.next_admission(),
                target,
                first: !account.was_admitted(),
                input_tokens,
                output_tokens,
                now_ms,
            };
            let admits = demand::admits(&facts, &attempt, &row);
            if admits.is_empty() {
                return Ok(None);
            }
            // A denial names a charge by its place.
            let charged: Arc<[Admit]> = admits.into();
            match self.worker.limiter.admit(Arc::clone(&charged)).await {
                Ok(mut reservation) => {
                    account.stands(Quota::admitted(reservation.admits(), reservation.left()));
                    account.admitted(reservation.take_permits());
                    return Ok(Some(Admitted { reservation, asked, output_tokens }));
                }
                // The store's clock is in another period than ours.
                Err(Denied::StalePeriod { now_ms: theirs }) if !stale => {
                    (now_ms, stale) = (theirs, true);
                }
                Err(denied) => return Err(self.refused(&denied, &charged, target, account)),
            }
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
            Denied::StalePeriod { .. } => (0, 0, None),
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
    /// What is known of the request before it is sent.
    fn asked(&self) -> Asked {
        Asked {
            prompt_bytes: if self.endpoint.asks_with_text() { self.body.len() as u64 } else { 0 },
            max_tokens: self.envelope.max_tokens,
            choices: self.envelope.choices,
            text: self.endpoint.answers_with_text(),
        }
    }

    /// The tokens that an attempt at `target` is expected to use.
    fn estimate(&self, asked: Asked, target: &Target) -> Tokens {
        let model = target.model.as_deref().unwrap_or(&self.envelope.model);
        let estimates = &self.worker.shared.estimates;
        let estimates = estimates.lock().unwrap_or_else(PoisonError::into_inner);
        estimates.estimate(&asked.of(model))
    }
}

/// What a client is told of a limit that refused.
fn fault(name: &str, charge: &Charge, refusal: Refusal) -> Fault {
    let Charge { amount, rule, metric, .. } = *charge;
    let is_budget = matches!(rule.algorithm, Algorithm::Budget { .. });
    let whole = match rule.algorithm {
        Algorithm::Bucket { burst, .. } => burst,
        Algorithm::Window { .. } | Algorithm::Budget { .. } | Algorithm::Permits => rule.limit,
    };
    let (code, unit) = match metric {
        Metric::Cost if is_budget => (Code::BudgetExceeded, ""),
        Metric::Cost => (Code::CostLimited, ""),
        Metric::Requests => (Code::RateLimited, " requests"),
        Metric::Tokens => (Code::TokensLimited, " tokens"),
        Metric::InputTokens => (Code::TokensLimited, " input tokens"),
        Metric::OutputTokens => (Code::TokensLimited, " output tokens"),
        Metric::Concurrency => (Code::ConcurrencyLimited, " requests at the same time"),
    };
    let shown = |amount: u64| match metric {
        Metric::Cost => usd(amount),
        _ => format!("{amount}{unit}"),
    };
    let [most, limit] = [whole, rule.limit].map(shown);
    let bare = |amount: u64| match metric {
        Metric::Cost => usd(amount),
        _ => amount.to_string(),
    };
    let [needed, left] = [amount, refusal.left].map(bare);
    if amount > whole && !is_budget {
        let message = format!("needs {needed}, and the limit {name} is {most}: no retry helps");
        return Fault::new(Code::RequestExceedsLimit, message);
    }
    let message = format!("over the limit {name} of {limit}: {needed} needed, {left} left");
    let fault = Fault::new(code, message);
    match (refusal.wait_ms, metric) {
        (Some(wait), _) => fault.retry_after(Duration::from_millis(wait)),
        (None, Metric::Concurrency) => fault.retry_after(PERMIT_WAIT),
        (None, _) => fault,
    }
}

/// Micro-USD as people write money.
fn usd(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    // Cents always, and more digits only where there are any.
    let least = text.len() - 4;
    let shown = text.trim_end_matches('0').len().max(least);
    format!("{} USD", text.get(..shown).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::{Degraded, Holder, LimitId, Rule};

    fn refused(metric: Metric, algorithm: Algorithm, amount: u64, wait_ms: Option<u64>) -> Fault {
        let rule = Rule { id: LimitId(*b"12345678"), algorithm, limit: 100 };
        let (holder, degraded) = (Holder::Attempt, Degraded::LocalShare);
        let charge = Charge { scope: 0, rule, amount, holder, metric, degraded, hard: false };
        fault("l", &charge, Refusal { charge: 0, wait_ms, left: 3 })
    }

    // T22, own refusals: the code, and when a retry helps.
    #[test]
    fn each_refusal_has_its_code_and_its_wait() {
        let window = Algorithm::Window { slot_ms: 1000, slots: 60 };
        let bucket = Algorithm::Bucket { window_ms: 60_000, burst: 200 };
        let budget = Algorithm::Budget { start_ms: 0, end_ms: 1 };
        let permits = Algorithm::Permits;
        let (requests, cost) = (Metric::Requests, Metric::Cost);
        for (metric, algorithm, amount, wait, code, after) in [
            (requests, window, 1, Some(7), Code::RateLimited, Some(7)),
            (Metric::Tokens, window, 50, Some(9), Code::TokensLimited, Some(9)),
            (Metric::OutputTokens, bucket, 150, Some(9), Code::TokensLimited, Some(9)),
            (Metric::InputTokens, bucket, 201, None, Code::RequestExceedsLimit, None),
            (requests, window, 101, None, Code::RequestExceedsLimit, None),
            (cost, window, 5, Some(8), Code::CostLimited, Some(8)),
            (cost, budget, 500, Some(99), Code::BudgetExceeded, Some(99)),
            (Metric::Concurrency, permits, 1, None, Code::ConcurrencyLimited, Some(1000)),
        ] {
            let fault = refused(metric, algorithm, amount, wait);
            assert_eq!(fault.code, code, "{metric:?}");
            assert_eq!(fault.retry_after, after.map(Duration::from_millis), "{metric:?}");
        }
    }

    #[test]
    fn money_is_written_as_people_write_it() {
        for (micro, text) in [
            (0, "0.00 USD"),
            (1, "0.000001 USD"),
            (1_500_000, "1.50 USD"),
            (20_000_000, "20.00 USD"),
        ] {
            assert_eq!(usd(micro), text);
        }
    }
}
