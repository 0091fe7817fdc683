//! What a member of a tag carries: `lua/include/held.lua` describes it. The scripts read slots,
//! amounts and the bill; what else is in the note is for the node that sweeps it.

use std::sync::Arc;

use super::{Bytes, put_text};
use crate::domain::AttemptId;
use crate::policy::limit::{Admit, Bill, Counts, Lapsed, Row};

/// What joins the names of a row.
const JOIN: char = '\u{1f}';

/// The note of an admission: bill, scopes, and of each charge its scope.
pub(crate) fn note(admit: &Admit) -> Vec<u8> {
    let mut note = Vec::with_capacity(160);
    note.push(u8::from(admit.bill.is_some()));
    let row = admit.bill.as_ref().map_or_else(String::new, |bill| row_text(&bill.row));
    put_text(&mut note, &row);
    if let Some(bill) = &admit.bill {
        put_counts(&mut note, &bill.estimate);
    }
    note.push(u8::try_from(admit.scopes.len()).unwrap_or(u8::MAX));
    for scope in admit.scopes.iter().take(usize::from(u8::MAX)) {
        put_text(&mut note, scope);
    }
    note.extend(admit.charges.iter().map(|charge| charge.scope));
    note
}

/// Reads a member back.
pub(crate) fn read(id: &[u8], held: &[u8]) -> Option<Lapsed> {
    let id = AttemptId::from_bytes(id.try_into().ok()?);
    let mut bytes = Bytes(held);
    let _steps = bytes.byte()?;
    let charges = bytes.byte()?;
    let _admitted_until = bytes.number(6)?;
    let _slots = bytes.take(usize::from(charges) * 6)?;
    let packed: Option<Vec<_>> = (0..charges).map(|_| bytes.packed_charge()).collect();
    let billed = bytes.byte()? == 1;
    let row = bytes.text()?;
    let bill = match billed {
        true => Some(Bill { row: row_from(row)?, estimate: take_counts(&mut bytes)? }),
        false => None,
    };
    let scopes = bytes.byte()?;
    let scopes: Option<Vec<Arc<str>>> = (0..scopes).map(|_| bytes.text().map(Into::into)).collect();
    let charges: Option<Vec<_>> =
        packed?.iter().map(|packed| packed.charge(bytes.byte()?)).collect();
    Some(Lapsed { id, scopes: scopes?, charges: charges?, bill })
}

/// A row as the field of a hash. Names cannot hold what joins them; a client's model may.
pub(crate) fn row_text(row: &Row) -> String {
    let mut text = String::with_capacity(64);
    for (at, part) in [&row.key, &row.pool, &row.target, &row.model].into_iter().enumerate() {
        if at > 0 {
            text.push(JOIN);
        }
        text.extend(part.chars().map(|c| if c == JOIN { ' ' } else { c }));
    }
    text
}

/// Reads it back.
pub(crate) fn row_from(text: &str) -> Option<Row> {
    let mut parts = text.split(JOIN).map(Arc::<str>::from);
    let row = Row {
        key: parts.next()?,
        pool: parts.next()?,
        target: parts.next()?,
        model: parts.next()?,
    };
    parts.next().is_none().then_some(row)
}

/// Ten doubles: exact up to 2^53.
pub(crate) fn put_counts(to: &mut Vec<u8>, counts: &Counts) {
    for count in counts_in_order(counts) {
        to.extend_from_slice(&double(count).to_le_bytes());
    }
}

/// Reads them back.
pub(crate) fn take_counts(bytes: &mut Bytes<'_>) -> Option<Counts> {
    let mut next = || Some(whole(f64::from_le_bytes(bytes.take(8)?.try_into().ok()?)));
    Some(Counts {
        requests: next()?,
        attempts: next()?,
        input_tokens: next()?,
        output_tokens: next()?,
        cached_tokens: next()?,
        reasoning_tokens: next()?,
        cost_micro_usd: next()?,
        errors: next()?,
        estimated: next()?,
        node_lost: next()?,
    })
}

fn counts_in_order(counts: &Counts) -> [i64; 10] {
    [
        counts.requests,
        counts.attempts,
        counts.input_tokens,
        counts.output_tokens,
        counts.cached_tokens,
        counts.reasoning_tokens,
        counts.cost_micro_usd,
        counts.errors,
        counts.estimated,
        counts.node_lost,
    ]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 a count is cut, which is 9 billion USD"
)]
const fn double(count: i64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, reason = "whole numbers below 2^53 were written")]
const fn whole(count: f64) -> i64 {
    count as i64
}
