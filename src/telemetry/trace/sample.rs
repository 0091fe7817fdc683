//! Whether a request is traced: decided from its head, before anything is allocated for it.

use actix_http::header::HeaderMap;
use opentelemetry::trace::TraceId;

use super::config::SamplerConfig;
use super::context::Parent;
use crate::domain::RequestId;

/// The head sampler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    parent_based: bool,
    /// Of 2^63: how OpenTelemetry compares a ratio with a trace id, so that every service on the
    /// way decides alike.
    threshold: u64,
}

impl Sampler {
    pub(super) fn new(config: SamplerConfig) -> Self {
        let SamplerConfig { parent_based, ratio } = config;
        // A float that is too large for the type becomes its largest value, a negative one 0.
        let threshold = (ratio * (1_u64 << 63) as f64) as u64;
        Self { parent_based, threshold }
    }

    /// The parent of a request that is traced; none where the request is not. A request without a
    /// parent gets its own id for a trace id.
    pub(super) fn decide(&self, id: RequestId, headers: &HeaderMap) -> Option<Option<Parent>> {
        if self.threshold == 0 && !self.parent_based {
            return None;
        }
        let parent = Parent::read(headers);
        let sampled = match parent {
            Some(parent) if self.parent_based => parent.sampled,
            Some(parent) => self.takes(parent.trace),
            None => self.takes(TraceId::from_bytes(id.to_bytes())),
        };
        sampled.then_some(parent)
    }

    fn takes(&self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::header::{HeaderName, HeaderValue};
    use opentelemetry_sdk::trace::{Sampler as Official, SamplingDecision, ShouldSample};

    fn sampler(parent_based: bool, ratio: f64) -> Sampler {
        Sampler::new(SamplerConfig { parent_based, ratio })
    }

    fn id(low: u64) -> RequestId {
        let mut bytes = [7; 16];
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        RequestId::from_random(bytes)
    }

    fn caller(sampled: bool) -> HeaderMap {
        let text = format!("00-{}-b7ad6b7169203331-{:02x}", "1".repeat(32), u8::from(sampled));
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(text).expect("a header's value");
        headers.insert(HeaderName::from_static("traceparent"), value);
        headers
    }

    #[test]
    fn a_caller_decides_only_where_it_is_asked_to() {
        let none = HeaderMap::new();
        let rows = [
            // parent based, ratio: no parent, unsampled parent, sampled parent
            (false, 1.0, [true, true, true]),
            (false, 0.0, [false, false, false]),
            (true, 1.0, [true, false, true]),
            (true, 0.0, [false, false, true]),
        ];
        for (parent_based, ratio, expected) in rows {
            let sampler = sampler(parent_based, ratio);
            let decided = [&none, &caller(false), &caller(true)]
                .map(|headers| sampler.decide(id(9), headers).is_some());
            assert_eq!(decided, expected, "{parent_based} {ratio}");
        }
    }

    #[test]
    fn a_ratio_takes_the_traces_that_every_other_service_takes() {
        for ratio in [0.0, 1e-9, 0.01, 0.25, 0.5, 0.999, 1.0] {
            for low in (0..64).flat_map(|bit| [1_u64 << bit, !(1_u64 << bit)]) {
                let trace = TraceId::from_bytes(id(low).to_bytes());
                let official = Official::TraceIdRatioBased(ratio).should_sample(
                    None,
                    trace,
                    "",
                    &opentelemetry::trace::SpanKind::Server,
                    &[],
                    &[],
                );
                let expected = official.decision == SamplingDecision::RecordAndSample;
                let ours = sampler(true, ratio).decide(id(low), &HeaderMap::new());
                assert_eq!(ours.is_some(), expected, "{ratio} {low:x}");
            }
        }
    }
}
