//! `renew` and `lapsed`: leases that go on, and leases that ended.

use redis::Value;

use super::super::keys::TagKeys;
use super::super::script::Name;
use super::{Call, DEADLINE_BYTES, Error, Reply, held};
use crate::policy::limit::{Algorithm, Holder, Lapsed, Renew};

/// The most members that are looked at in one call.
const MOST_LAPSED: usize = 1000;

/// Leases that end at `lease_end_ms` from now on.
pub(crate) fn pack(keys: &TagKeys, leases: &[Renew], lease_end_ms: u64) -> Result<Call, Error> {
    let mut names = vec![keys.open(), keys.held()];
    let before = names.len();
    let (mut ids, mut count) = (Vec::new(), 0_u32);
    let mut put = |place: usize, id: &[u8]| {
        ids.extend_from_slice(&u16::try_from(place).map_err(|_| Error::Number)?.to_le_bytes());
        ids.push(u8::try_from(id.len()).map_err(|_| Error::Number)?);
        ids.extend_from_slice(id);
        count += 1;
        Ok(())
    };
    for lease in leases {
        if lease.member {
            put(0, &lease.id.to_bytes())?;
        }
        for charge in &lease.charges {
            if charge.rule.algorithm != Algorithm::Permits {
                continue;
            }
            let scope = lease.scopes.get(usize::from(charge.scope)).ok_or(Error::Number)?;
            let key = keys.permits(charge.rule.id, scope);
            let known = names.iter().skip(before).position(|name| *name == key);
            let place = known.unwrap_or_else(|| {
                names.push(key);
                names.len() - before - 1
            });
            match charge.holder {
                Holder::Request => put(place + 1, &lease.id.request.to_bytes())?,
                Holder::Attempt => put(place + 1, &lease.id.to_bytes())?,
            }
        }
    }
    let mut head = vec![0; DEADLINE_BYTES];
    head.extend_from_slice(&count.to_le_bytes());
    let args = vec![head, lease_end_ms.to_string().into_bytes(), ids];
    Ok(Call { script: Name::Renew, keys: names, args })
}

/// Members whose leases ended, at most so many.
pub(crate) fn pack_lapsed(keys: &TagKeys, limit: usize) -> Call {
    let limit = limit.clamp(1, MOST_LAPSED);
    Call {
        script: Name::Lapsed,
        keys: vec![keys.open(), keys.held()],
        args: vec![limit.to_string().into_bytes()],
    }
}

/// Those members.
pub(crate) fn read_lapsed(reply: &Reply) -> Result<Vec<Lapsed>, Error> {
    let pairs = reply.rest.chunks_exact(2);
    let read = |pair: &[Value]| match pair {
        [Value::BulkString(id), Value::BulkString(held)] => held::read(id, held),
        _ => None,
    };
    pairs.map(|pair| read(pair).ok_or(Error::Reply)).collect()
}
