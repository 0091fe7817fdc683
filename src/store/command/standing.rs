//! `standing`: how limits stand, for those who look.

use std::sync::Arc;

use super::super::keys::TagKeys;
use super::super::script::Name;
use super::{Call, Error, Reply, Touched};
use crate::policy::limit::{Charge, Degraded, Holder, Metric, Rule, Standing};

/// Asks how limits stand, each named by its scope and rule.
pub(crate) fn pack(keys: &TagKeys, asked: &[(Arc<str>, Rule)]) -> Result<Call, Error> {
    let mut touched = Touched::default();
    let mut packed = Vec::with_capacity(asked.len() * 36);
    for (scope, rule) in asked {
        // Only the rule matters.
        let charge = Charge {
            scope: 0,
            rule: *rule,
            amount: 0,
            holder: Holder::Request,
            metric: Metric::Requests,
            degraded: Degraded::LocalShare,
            hard: false,
        };
        touched.pack(scope, &charge, &mut packed)?;
    }
    let mut names = Vec::new();
    touched.append_keys(keys, &mut names);
    let mut head = touched.scope_count().to_le_bytes().to_vec();
    head.extend_from_slice(&u16::try_from(asked.len()).unwrap_or(u16::MAX).to_le_bytes());
    Ok(Call { script: Name::Standing, keys: names, args: vec![head, packed] })
}

/// In the order asked.
pub(crate) fn read(reply: &Reply) -> Result<Vec<Standing>, Error> {
    Ok(reply.numbers()?.into_iter().map(|used| Standing { used }).collect())
}
