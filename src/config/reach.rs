//! Which limits can apply to a key: all but those that are narrowed to another key, tenant or
//! service class.
//!
//! A document may have a limit for each of a hundred thousand keys, so each key must find its own
//! without looking at all others'.

use std::collections::HashMap;

use super::document::{Dimension, Limit, Scope};

/// Limits, found by whom they are narrowed to.
pub(super) struct Reach<'a> {
    limits: &'a [Limit],
    everyone: Vec<usize>,
    narrowed: HashMap<(&'static str, &'a str), Vec<usize>>,
}

/// Whom a limit may be narrowed to, the smallest first.
const WHOM: [Dimension; 3] = [Dimension::Key, Dimension::Tenant, Dimension::Tier];

impl<'a> Reach<'a> {
    pub(super) fn of(limits: &'a [Limit]) -> Self {
        let mut reach = Self { limits, everyone: Vec::new(), narrowed: HashMap::new() };
        for (index, limit) in limits.iter().enumerate() {
            let narrowest = WHOM.into_iter().find_map(|whom| Some((whom, narrow(limit, whom)?)));
            match narrowest {
                None => reach.everyone.push(index),
                Some((whom, value)) => {
                    reach.narrowed.entry((whom.name(), value)).or_default().push(index);
                }
            }
        }
        reach
    }

    /// Places of the limits that can apply to this key, in the document's order.
    pub(super) fn to(&self, key: &str, tenant: &str, tier: Option<&str>) -> Vec<usize> {
        let who = WHOM.into_iter().zip([Some(key), Some(tenant), tier]);
        let theirs = who.clone().filter_map(|(whom, is)| self.narrowed.get(&(whom.name(), is?)));
        let applies = |index: &usize| {
            self.limits.get(*index).is_some_and(|limit| {
                who.clone().all(|(whom, is)| narrow(limit, whom).is_none_or(|one| Some(one) == is))
            })
        };
        let theirs = theirs.flatten().copied().filter(applies);
        let mut found: Vec<_> = self.everyone.iter().copied().chain(theirs).collect();
        found.sort_unstable();
        found
    }
}

/// The one value that `limit` is narrowed to in this dimension.
pub(super) fn narrow(limit: &Limit, dimension: Dimension) -> Option<&str> {
    match &limit.scope {
        Scope::Narrow(narrow) => {
            narrow.values().find(|(found, _)| *found == dimension).map(|(_, value)| value)
        }
        _ => None,
    }
}
