//! `admit` and `top_up`: what is asked of the limits of a tag, and the verdict.

use super::super::keys::TagKeys;
use super::super::script::Name;
use super::{Call, DEADLINE_BYTES, Error, Reply, Status, Touched, held};
use crate::policy::limit::{Admit, Charge, Refusal, TopUp, Verdict};

/// The most charges of one call: they are counted in a byte of what the member holds.
const CHARGES: usize = 255;

/// An admission whose leases end at `lease_end_ms`.
pub(crate) fn pack(keys: &TagKeys, admit: &Admit, lease_end_ms: u64) -> Result<Call, Error> {
    let (touched, charges) = packed(&admit.scopes, &admit.charges)?;
    let mut names = vec![keys.open(), keys.held(), keys.seen()];
    touched.append_keys(keys, &mut names);
    let note = if admit.member { held::note(admit) } else { Vec::new() };
    let mut args = vec![
        head(u8::from(admit.member), &touched, admit.charges.len()),
        admit.id.to_bytes().to_vec(),
        lease_end_ms.to_string().into_bytes(),
        charges,
        note,
    ];
    touched.append_ttls(&mut args);
    Ok(Call { script: Name::Admit, keys: names, args })
}

/// More for a member.
pub(crate) fn pack_top_up(keys: &TagKeys, more: &TopUp) -> Result<Call, Error> {
    let (touched, charges) = packed(&more.scopes, &more.charges)?;
    let mut names = vec![keys.held()];
    touched.append_scope_keys(keys, &mut names);
    let mut args =
        vec![head(more.step, &touched, more.charges.len()), more.id.to_bytes().to_vec(), charges];
    touched.append_ttls(&mut args);
    Ok(Call { script: Name::TopUp, keys: names, args })
}

fn packed(scopes: &[std::sync::Arc<str>], charges: &[Charge]) -> Result<(Touched, Vec<u8>), Error> {
    if charges.len() > CHARGES {
        return Err(Error::Number);
    }
    let mut touched = Touched::default();
    let mut packed = Vec::with_capacity(charges.len() * 36);
    for charge in charges {
        let scope = scopes.get(usize::from(charge.scope)).ok_or(Error::Number)?;
        touched.pack(scope, charge, &mut packed)?;
    }
    Ok((touched, packed))
}

fn head(byte: u8, touched: &Touched, charges: usize) -> Vec<u8> {
    let mut head = vec![0; DEADLINE_BYTES];
    head.push(byte);
    head.extend_from_slice(&touched.scope_count().to_le_bytes());
    head.extend_from_slice(&u16::try_from(charges).unwrap_or(u16::MAX).to_le_bytes());
    head
}

/// What either of them answers.
pub(crate) fn read(reply: &Reply) -> Result<Verdict, Error> {
    Ok(match reply.status {
        Status::Ok => Verdict::Admitted(reply.numbers()?),
        Status::Duplicate => Verdict::Duplicate,
        Status::Late => Verdict::Late,
        Status::Stale => Verdict::StalePeriod,
        Status::Refused => {
            let [charge, wait, left] = reply.rest.as_slice() else { return Err(Error::Reply) };
            let number = |value: &redis::Value| match value {
                redis::Value::Int(number) => Ok(*number),
                _ => Err(Error::Reply),
            };
            Verdict::Refused(Refusal {
                charge: usize::try_from(number(charge)?).map_err(|_| Error::Reply)?,
                // -1 stands for none.
                wait_ms: u64::try_from(number(wait)?).ok(),
                left: u64::try_from(number(left)?).map_err(|_| Error::Reply)?,
            })
        }
        Status::Ask => return Err(Error::Reply),
    })
}
