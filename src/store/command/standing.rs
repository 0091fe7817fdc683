//! `standing`: how limits stand, for those who look.

use std::sync::Arc;

use super::super::keys::TagKeys;
use super::super::script::Name;
use super::{Call, Error, Reply, Touched};
use crate::policy::limit::{Charge, Standing};

/// Asks how the limits of these charges stand; their amounts do not matter.
pub(crate) fn pack(keys: &TagKeys, scopes: &[Arc<str>], charges: &[Charge]) -> Result<Call, Error> {
    let mut touched = Touched::default();
    let mut packed = Vec::with_capacity(charges.len() * 36);
    for charge in charges {
        let scope = scopes.get(usize::from(charge.scope)).ok_or(Error::Number)?;
        touched.pack(keys, scope, &Charge { amount: 0, ..*charge }, &mut packed)?;
    }
    let mut names = Vec::new();
    touched.append_keys(&mut names);
    let mut head = touched.scope_count().to_le_bytes().to_vec();
    head.extend_from_slice(&u16::try_from(charges.len()).unwrap_or(u16::MAX).to_le_bytes());
    Ok(Call { script: Name::Standing, keys: names, args: vec![head, packed] })
}

/// In the order of the charges.
pub(crate) fn read(reply: &Reply) -> Result<Vec<Standing>, Error> {
    Ok(reply.numbers()?.into_iter().map(|used| Standing { used }).collect())
}
