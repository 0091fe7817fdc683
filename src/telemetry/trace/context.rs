//! W3C trace context: which trace a request belongs to, read from and written to headers.
//!
//! Read without allocating, because it is read before it is known whether the request is traced.

use std::str::FromStr;

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::domain::{Headers, RequestId};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of the caller, as its `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
}

impl Parent {
    /// The caller's span, if the headers name exactly one and name it well.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(&TRACEPARENT);
        let value = all.next()?;
        if all.next().is_some() { None } else { Self::parse(value.as_bytes()) }
    }

    /// A parent for what is done on behalf of a request that is not traced.
    pub(super) fn unsampled(id: RequestId) -> Self {
        let bytes = id.to_bytes();
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        let span = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
        Self { trace: TraceId::from_bytes(bytes), span, sampled: false }
    }

    /// `version-trace-span-flags`, each in lower-case hexadecimal digits. A version that is not
    /// known may have more behind the flags.
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(55)?;
        let mut fields = head.split(|byte| *byte == b'-');
        let [version]: [u8; 1] = hex(fields.next()?)?;
        let trace: [u8; 16] = hex(fields.next()?)?;
        let span: [u8; 8] = hex(fields.next()?)?;
        let [flags]: [u8; 1] = hex(fields.next()?)?;
        let known = version == 0;
        let whole = rest.is_empty() || (!known && rest.starts_with(b"-"));
        if version == 0xff || !whole || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The caller's span as OpenTelemetry has it, with the caller's `tracestate`.
    pub(super) fn context(self, headers: &HeaderMap) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let state = headers.get(&TRACESTATE).and_then(|value| value.to_str().ok());
        let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        SpanContext::new(self.trace, self.span, flags, true, state)
    }

    /// Writes this span as the parent of whoever gets `to`, with the caller's `tracestate`.
    pub(super) fn write(self, caller: &HeaderMap, to: &mut Headers) {
        let flags = u8::from(self.sampled);
        let text = format!("00-{}-{}-{flags:02x}", self.trace, self.span);
        if let Ok(value) = HeaderValue::try_from(text) {
            to.insert(TRACEPARENT.clone(), value);
        }
        for state in caller.get_all(&TRACESTATE) {
            to.append(TRACESTATE.clone(), state.clone());
        }
    }
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (digit(*pair.first()?)?, digit(*pair.last()?)?);
        *byte = high << 4 | low;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_and_written_as_it_came() {
        let parent = Parent::parse(GOOD.as_bytes()).expect("it is good");
        assert!(parent.sampled);
        assert_eq!(parent.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        let mut caller = HeaderMap::new();
        caller.insert(TRACESTATE.clone(), HeaderValue::from_static("a=1,b=2"));
        let mut to = Headers::new();
        parent.write(&caller, &mut to);
        assert_eq!(to.get(&TRACEPARENT).expect("written"), GOOD);
        assert_eq!(to.get(&TRACESTATE).expect("passed on"), "a=1,b=2");
        assert_eq!(parent.context(&caller).trace_state().get("b"), Some("2"));
    }

    #[test]
    fn flags_and_versions_of_the_future_are_understood() {
        let read = |text: &str| Parent::parse(text.as_bytes());
        assert!(!read(&GOOD.replace("-01", "-02")).expect("other flags").sampled);
        assert!(read(&GOOD.replace("-01", "-ff")).expect("all flags").sampled);
        assert!(read(&GOOD.replacen("00-", "01-", 1)).is_some());
        assert!(read(&format!("{}-more", GOOD.replacen("00-", "01-", 1))).is_some());
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for text in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &GOOD.replace("0af7", "0ag7"),
            &GOOD.replace("16cd43dd", "-16cd43d"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT.clone(), HeaderValue::from_static(GOOD));
        assert!(Parent::read(&headers).is_some());
        headers.append(TRACEPARENT.clone(), HeaderValue::from_static(GOOD));
        assert_eq!(Parent::read(&headers), None);
    }
}
