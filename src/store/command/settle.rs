//! `settle`: a batch of truths, applied once.

use super::super::keys::TagKeys;
use super::super::script::Name;
use super::{
    Call, DEADLINE_BYTES, Error, Reply, Status, Touched, count, held, put_number, put_text,
};
use crate::policy::limit::{Applied, Batch, Origin};

/// One hour, in ms.
const HOUR_MS: u64 = 3_600_000;
/// Hours of a day.
const DAY_HOURS: u64 = 24;

/// What a batch came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is settled.
    Applied(Applied),
    /// Its deadline had passed.
    Late,
    /// Nothing was applied: the usage of these hours is touched too.
    Ask(Vec<u64>),
}

/// A batch. `more_hours` are those that the script asked for.
pub(crate) fn pack(
    keys: &TagKeys,
    batch: &Batch,
    now_ms: u64,
    usage_ttl_ms: u64,
    more_hours: &[u64],
) -> Result<Call, Error> {
    let mut touched = Touched::default();
    let settles = settles(batch, &mut touched)?;
    // The present hour comes first: what lost nodes used is recorded there.
    let mut hours = vec![now_ms / HOUR_MS];
    for hour in batch.usage.iter().map(|(hour, ..)| *hour).chain(more_hours.iter().copied()) {
        if !hours.contains(&hour) {
            hours.push(hour);
        }
    }
    let today = now_ms / HOUR_MS / DAY_HOURS;
    let mut names = vec![
        keys.batch(batch.incarnation),
        keys.open(),
        keys.held(),
        keys.seen(),
        keys.lost(today),
        keys.lost(today.saturating_sub(1)),
    ];
    names.extend(hours.iter().map(|hour| keys.usage(*hour)));
    touched.append_keys(keys, &mut names);
    let mut head = vec![0; DEADLINE_BYTES];
    put_number(&mut head, batch.number)?;
    let short = |len: usize| u16::try_from(len).map_err(|_| Error::Number);
    let counts = [
        short(hours.len())?,
        touched.scope_count(),
        touched.permit_count(),
        short(batch.settles.len())?,
        short(batch.usage.len())?,
    ];
    head.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    let mut packed_hours = Vec::with_capacity(hours.len() * 4);
    for hour in &hours {
        let hour = u32::try_from(*hour).map_err(|_| Error::Number)?;
        packed_hours.extend_from_slice(&hour.to_le_bytes());
    }
    let rows = rows(batch, &hours);
    let ttl = usage_ttl_ms.to_string().into_bytes();
    let mut args = vec![head, packed_hours, settles, rows, ttl];
    touched.append_ttls(&mut args);
    Ok(Call { script: Name::Settle, keys: names, args })
}

fn settles(batch: &Batch, touched: &mut Touched) -> Result<Vec<u8>, Error> {
    let mut packed = Vec::new();
    for settle in &batch.settles {
        packed.extend_from_slice(&settle.id.to_bytes());
        packed.push(match settle.origin {
            Origin::Member => 0,
            Origin::Elsewhere => 1,
            Origin::Lapsed => 2,
        });
        packed.push(u8::try_from(settle.charges.len()).map_err(|_| Error::Number)?);
        for charge in &settle.charges {
            let scope = settle.scopes.get(usize::from(charge.scope)).ok_or(Error::Number)?;
            touched.pack(scope, charge, &mut packed)?;
        }
    }
    Ok(packed)
}

fn rows(batch: &Batch, hours: &[u64]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (hour, row, counts) in &batch.usage {
        let at = hours.iter().position(|known| known == hour);
        let at = at.expect("every hour of the batch was listed");
        packed.extend_from_slice(&count(at).to_le_bytes());
        put_text(&mut packed, &held::row_text(row));
        held::put_counts(&mut packed, counts);
    }
    packed
}

/// What the script answers.
pub(crate) fn read(reply: &Reply) -> Result<Outcome, Error> {
    Ok(match reply.status {
        Status::Ok => Outcome::Applied(Applied::Now),
        Status::Duplicate => Outcome::Applied(Applied::Before),
        Status::Late => Outcome::Late,
        Status::Ask => Outcome::Ask(reply.numbers()?),
        Status::Refused | Status::Stale => return Err(Error::Reply),
    })
}
