//! The `x-ratelimit-*` headers, as OpenAI's clients read them: how the tightest limit of requests
//! and the tightest limit of tokens stand after this request.

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::limit::{Admit, Algorithm, Charge, Metric, Refusal};

/// How the tightest limits stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    requests: Option<Stand>,
    tokens: Option<Stand>,
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    limit: u64,
    left: u64,
    /// In how many milliseconds all of it is there again, at most.
    reset_ms: u64,
}

impl Quota {
    /// After an admission; `left` is what each charge left, in the order of admits and charges.
    pub(super) fn admitted(admits: &[Admit], left: &[Vec<u64>]) -> Self {
        let mut quota = Self::default();
        for (admit, left) in admits.iter().zip(left) {
            for (charge, left) in admit.charges.iter().zip(left) {
                quota.see(charge, *left);
            }
        }
        quota
    }

    /// After a refusal: only the limit that refused is known.
    pub(super) fn refused(charge: &Charge, refusal: Refusal) -> Self {
        let mut quota = Self::default();
        quota.see(charge, refusal.left);
        quota
    }

    fn see(&mut self, charge: &Charge, left: u64) {
        let place = match charge.metric {
            Metric::Requests => &mut self.requests,
            Metric::Tokens | Metric::InputTokens | Metric::OutputTokens => &mut self.tokens,
            Metric::Cost | Metric::Concurrency => return,
        };
        let limit = charge.rule.limit;
        let used = u128::from(limit.saturating_sub(left));
        let reset_ms = match charge.rule.algorithm {
            _ if used == 0 => 0,
            Algorithm::Window { slot_ms, slots } => slot_ms.saturating_mul(u64::from(slots)),
            Algorithm::Bucket { window_ms, .. } => {
                let full = used * u128::from(window_ms);
                u64::try_from(full.div_ceil(u128::from(limit.max(1)))).unwrap_or(u64::MAX)
            }
            Algorithm::Budget { .. } | Algorithm::Permits => return,
        };
        let stand = Stand { limit, left, reset_ms };
        let tighter = |than: &Stand| {
            u128::from(left) * u128::from(than.limit) < u128::from(than.left) * u128::from(limit)
        };
        if place.as_ref().is_none_or(tighter) {
            *place = Some(stand);
        }
    }

    /// Writes the headers. A provider's own ones speak of our account there, so they make way.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        const REQUESTS: [&str; 3] = [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ];
        const TOKENS: [&str; 3] = [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ];
        for (names, stand) in [(REQUESTS, self.requests), (TOKENS, self.tokens)] {
            let Some(stand) = stand else { continue };
            let [limit, remaining, reset] = names.map(HeaderName::from_static);
            headers.insert(limit, HeaderValue::from(stand.limit));
            headers.insert(remaining, HeaderValue::from(stand.left));
            if let Ok(value) = HeaderValue::try_from(duration(stand.reset_ms)) {
                headers.insert(reset, value);
            }
        }
    }
}

/// A duration as OpenAI writes it: `20ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn duration(ms: u64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = if rest == 0 {
        String::new()
    } else {
        format!(".{rest:03}").trim_end_matches('0').to_owned()
    };
    let last = format!("{}{fraction}s", seconds % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 && rest > 0 => format!("{rest}ms"),
        (0, 0) => last,
        (0, _) => format!("{minutes}m{last}"),
        _ => format!("{hours}h{minutes}m{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::{Degraded, Holder, LimitId, Rule};

    fn charge(metric: Metric, limit: u64, algorithm: Algorithm) -> Charge {
        let rule = Rule { id: LimitId(*b"12345678"), algorithm, limit };
        let (holder, degraded) = (Holder::Attempt, Degraded::LocalShare);
        Charge { scope: 0, rule, amount: 1, holder, metric, degraded, hard: false }
    }

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (86_400_000, "24h0m0s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn the_limit_with_the_smallest_share_left_is_reported() {
        let window = Algorithm::Window { slot_ms: 1000, slots: 60 };
        let bucket = Algorithm::Bucket { window_ms: 60_000, burst: 600 };
        let mut quota = Quota::default();
        quota.see(&charge(Metric::Requests, 100, window), 50);
        quota.see(&charge(Metric::Requests, 600, bucket), 60);
        quota.see(&charge(Metric::Requests, 10, window), 6);
        quota.see(&charge(Metric::Concurrency, 1, Algorithm::Permits), 0);
        let mut headers = HeaderMap::new();
        quota.write(&mut headers);
        let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value("x-ratelimit-limit-requests"), Some("600"));
        assert_eq!(value("x-ratelimit-remaining-requests"), Some("60"));
        assert_eq!(value("x-ratelimit-reset-requests"), Some("54s"));
        assert_eq!(value("x-ratelimit-limit-tokens"), None);
    }
}
