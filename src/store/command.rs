//! The commands as the scripts read them, and the scripts' replies: `lua/*.lua` say the same from
//! the other side, and a test holds the headers there against what is packed here.

pub(crate) mod admit;
pub(crate) mod held;
pub(crate) mod registry;
pub(crate) mod renew;
pub(crate) mod settle;
pub(crate) mod standing;

use std::sync::Arc;

use redis::Value;
use smallvec::SmallVec;

use super::fault::Error;
use super::keys::TagKeys;
use super::script::Name;
use crate::policy::limit::{Algorithm, Charge, Degraded, Holder, LimitId, Metric, Rule};

/// Every number of the state machines is below this, so that products of two stay exact.
const NUMBERS: u64 = 1 << 48;
/// Every product is below this: the whole numbers of a double.
const PRODUCTS: u64 = 1 << 53;
/// What a scope's state may outlive its longest window by.
const TTL_SLACK_MS: u64 = 60_000;
/// How many bytes begin the first argument of a call that changes something: its deadline.
const DEADLINE_BYTES: usize = 6;

/// One call of a script.
#[derive(Debug)]
pub(crate) struct Call {
    /// The script.
    pub(crate) script: Name,
    /// Its keys, in the order of its header.
    pub(crate) keys: Vec<String>,
    /// Its arguments. The first begins with room for a deadline, where the script changes anything.
    pub(crate) args: Vec<Vec<u8>>,
}

impl Call {
    /// Whether it changes anything, and therefore carries a deadline.
    pub(crate) const fn changes(&self) -> bool {
        !matches!(self.script, Name::Lapsed | Name::Standing)
    }

    /// From when on it must change nothing any more, in Redis time.
    pub(crate) fn set_deadline(&mut self, deadline_ms: u64) {
        if !self.changes() {
            return;
        }
        let bytes = deadline_ms.to_le_bytes();
        let room = self.args.first_mut().and_then(|head| head.get_mut(..DEADLINE_BYTES));
        let room = room.expect("the head of a call that changes something has room for it");
        room.copy_from_slice(bytes.get(..DEADLINE_BYTES).expect("eight bytes hold six"));
    }
}

/// The first number of a reply; `lua/include/status.lua` has the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Duplicate,
    Refused,
    Late,
    Stale,
    Ask,
}

/// A reply: status, the time, and what follows.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) now_ms: i64,
    pub(crate) rest: Vec<Value>,
}

impl Reply {
    /// Reads what every script returns.
    pub(crate) fn read(value: Value) -> Result<Self, Error> {
        let Value::Array(values) = value else { return Err(Error::Reply) };
        let mut values = values.into_iter();
        let status = match values.next() {
            Some(Value::Int(0)) => Status::Ok,
            Some(Value::Int(1)) => Status::Duplicate,
            Some(Value::Int(2)) => Status::Refused,
            Some(Value::Int(3)) => Status::Late,
            Some(Value::Int(4)) => Status::Stale,
            Some(Value::Int(5)) => Status::Ask,
            _ => return Err(Error::Reply),
        };
        let Some(Value::Int(now_ms)) = values.next() else { return Err(Error::Reply) };
        Ok(Self { status, now_ms, rest: values.collect() })
    }

    /// The numbers behind the time.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>, Error> {
        let number = |value: &Value| match value {
            Value::Int(number) => u64::try_from(*number).map_err(|_| Error::Reply),
            _ => Err(Error::Reply),
        };
        self.rest.iter().map(number).collect()
    }
}

/// Which scopes and permits of a tag a call touches, and where it finds them.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// With how long each is wanted.
    scopes: SmallVec<[(Arc<str>, u64); 4]>,
    permits: SmallVec<[(LimitId, Arc<str>); 2]>,
}

impl Touched {
    /// Packs one charge, and notes what it touches; `scope` is its own. An amount is what clients
    /// and providers say, so one that is too large to be counted is no error: it is cut to the
    /// largest that is, which is above the limit, so it is refused, or a debt that is paid off late.
    pub(crate) fn pack(
        &mut self,
        scope: &Arc<str>,
        charge: &Charge,
        to: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Charge { rule, mut amount, .. } = *charge;
        amount = amount.min(NUMBERS - 1);
        let (kind, first, second, ttl_ms) = match rule.algorithm {
            Algorithm::Window { slot_ms, slots } => {
                let window_ms = below(slot_ms.saturating_mul(u64::from(slots) + 1), NUMBERS)?;
                if slot_ms == 0 || slots == 0 {
                    return Err(Error::Number);
                }
                (1, slot_ms, u64::from(slots), window_ms)
            }
            Algorithm::Bucket { window_ms, burst } => {
                // One unit more than the burst can be counted too.
                below(burst.saturating_add(1).saturating_mul(window_ms), PRODUCTS)?;
                if window_ms == 0 {
                    return Err(Error::Number);
                }
                amount = amount.min((PRODUCTS - 1) / window_ms);
                (2, window_ms, burst, full_after(window_ms, burst, rule.limit))
            }
            // A budget's state is wanted as long as a late correction may come.
            Algorithm::Budget { start_ms, end_ms } => {
                (3, start_ms, end_ms, end_ms.saturating_sub(start_ms))
            }
            Algorithm::Permits => (4, self.permits(rule.id, scope)?, 0, 0),
        };
        // Permits have keys of their own; their scope's blob is not touched.
        let scope = if kind == 4 { 0 } else { self.scope(scope, ttl_ms)? };
        to.extend_from_slice(&rule.id.0);
        to.extend_from_slice(&scope.to_le_bytes());
        to.extend_from_slice(&[kind, flags(charge)]);
        for number in [rule.limit, first, second, amount] {
            put_number(to, number)?;
        }
        Ok(())
    }

    /// The keys: scopes first, then permits.
    pub(crate) fn append_keys(&self, of: &TagKeys, keys: &mut Vec<String>) {
        self.append_scope_keys(of, keys);
        keys.extend(self.permits.iter().map(|(limit, scope)| of.permits(*limit, scope)));
    }

    /// The keys of the scopes alone.
    pub(crate) fn append_scope_keys(&self, of: &TagKeys, keys: &mut Vec<String>) {
        keys.extend(self.scopes.iter().map(|(scope, _)| of.scope(scope)));
    }

    /// How long each scope is wanted.
    pub(crate) fn append_ttls(&self, args: &mut Vec<Vec<u8>>) {
        args.extend(self.scopes.iter().map(|(_, ttl_ms)| ttl_ms.to_string().into_bytes()));
    }

    pub(crate) fn scope_count(&self) -> u16 {
        count(self.scopes.len())
    }

    pub(crate) fn permit_count(&self) -> u16 {
        count(self.permits.len())
    }

    fn scope(&mut self, scope: &Arc<str>, window_ms: u64) -> Result<u16, Error> {
        let ttl_ms = window_ms.saturating_add(TTL_SLACK_MS).min(NUMBERS);
        let at = match self.scopes.iter().position(|(known, _)| known == scope) {
            Some(at) => at,
            None => {
                self.scopes.push((Arc::clone(scope), 0));
                self.scopes.len() - 1
            }
        };
        let (_, longest) = self.scopes.get_mut(at).expect("it was found or pushed");
        *longest = ttl_ms.max(*longest);
        u16::try_from(at).map_err(|_| Error::Number)
    }

    fn permits(&mut self, limit: LimitId, scope: &Arc<str>) -> Result<u64, Error> {
        let mut known = self.permits.iter();
        let at = known.position(|(known, owner)| *known == limit && owner == scope);
        let at = at.unwrap_or_else(|| {
            self.permits.push((limit, Arc::clone(scope)));
            self.permits.len() - 1
        });
        u16::try_from(at).map(u64::from).map_err(|_| Error::Number)
    }
}

/// How long a bucket takes to be full again, at most.
fn full_after(window_ms: u64, burst: u64, limit: u64) -> u64 {
    let windows = burst.checked_div(limit).map_or(1, |windows| windows.saturating_add(1));
    windows.saturating_mul(window_ms).max(window_ms).min(NUMBERS)
}

fn count(len: usize) -> u16 {
    u16::try_from(len).expect("whatever is counted was numbered with 16 bits before")
}

fn below(number: u64, bound: u64) -> Result<u64, Error> {
    if number < bound { Ok(number) } else { Err(Error::Number) }
}

/// Six bytes.
pub(crate) fn put_number(to: &mut Vec<u8>, number: u64) -> Result<(), Error> {
    let bytes = below(number, NUMBERS)?.to_le_bytes();
    to.extend_from_slice(bytes.get(..6).expect("eight bytes hold six"));
    Ok(())
}

const METRICS: [Metric; 6] = [
    Metric::Requests,
    Metric::Tokens,
    Metric::InputTokens,
    Metric::OutputTokens,
    Metric::Cost,
    Metric::Concurrency,
];
const DEGRADED: [Degraded; 3] = [Degraded::LocalShare, Degraded::FailClosed, Degraded::FailOpen];

/// Bit 0: held by the attempt (the scripts read it). Bit 1: hard; 2-3: degraded; 4-6: the metric.
fn flags(charge: &Charge) -> u8 {
    let place = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
    u8::from(charge.holder == Holder::Attempt)
        | u8::from(charge.hard) << 1
        | place(DEGRADED.iter().position(|known| *known == charge.degraded)) << 2
        | place(METRICS.iter().position(|known| *known == charge.metric)) << 4
}

/// A charge as it was packed; its scope is an index into the scopes of that call.
pub(crate) struct Packed {
    pub(crate) id: LimitId,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) limit: u64,
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) amount: u64,
}

impl Packed {
    /// The charge, of this scope.
    fn charge(&self, scope: u8) -> Option<Charge> {
        let algorithm = match self.kind {
            1 => Algorithm::Window { slot_ms: self.first, slots: u32::try_from(self.second).ok()? },
            2 => Algorithm::Bucket { window_ms: self.first, burst: self.second },
            3 => Algorithm::Budget { start_ms: self.first, end_ms: self.second },
            4 => Algorithm::Permits,
            _ => return None,
        };
        Some(Charge {
            scope,
            rule: Rule { id: self.id, algorithm, limit: self.limit },
            amount: self.amount,
            holder: if self.flags & 1 == 1 { Holder::Attempt } else { Holder::Request },
            metric: *METRICS.get(usize::from(self.flags >> 4 & 7))?,
            degraded: *DEGRADED.get(usize::from(self.flags >> 2 & 3))?,
            hard: self.flags >> 1 & 1 == 1,
        })
    }
}

/// Reads packed bytes from the front.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A whole number of so many bytes, at most 8.
    pub(crate) fn number(&mut self, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..len)?.copy_from_slice(self.take(len)?);
        Some(u64::from_le_bytes(bytes))
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A text that its length precedes.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.number(2)?).ok()?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    pub(crate) fn packed_charge(&mut self) -> Option<Packed> {
        let id = LimitId(self.take(8)?.try_into().ok()?);
        let _scope = self.number(2)?;
        Some(Packed {
            id,
            kind: self.byte()?,
            flags: self.byte()?,
            limit: self.number(6)?,
            first: self.number(6)?,
            second: self.number(6)?,
            amount: self.number(6)?,
        })
    }
}

/// A text with its length before it.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

#[cfg(test)]
mod tests;
