//! Which leases this node holds, so that they can be renewed.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::domain::AttemptId;
use crate::policy::limit::{Admit, Algorithm, Charge, Holder, Renew};

/// What one command renews at most, so that no script takes long.
const AT_ONCE: usize = 256;

/// Attempts and requests in flight that hold leases, as many as the node has in flight. Attempt 0
/// of a request stands for the permits of the request itself.
#[derive(Debug, Default)]
pub(super) struct Leases {
    open: HashMap<AttemptId, Lease, RandomState>,
}

/// What one of them holds.
#[derive(Debug)]
struct Lease {
    admits: Arc<[Admit]>,
    /// Whether the store may know of it.
    known: bool,
}

impl Leases {
    pub(super) fn open(&mut self, id: AttemptId, admits: &Arc<[Admit]>, known: bool) {
        self.open.insert(id, Lease { admits: Arc::clone(admits), known });
    }

    /// Answers whether the store may know of it.
    pub(super) fn close(&mut self, id: AttemptId) -> bool {
        self.open.remove(&id).is_none_or(|lease| lease.known)
    }

    pub(super) fn holds(&self, id: AttemptId) -> bool {
        self.open.contains_key(&id)
    }

    /// Everything that is held now, tag by tag; of one tag alone where it is named. From here on the
    /// store may know of it.
    pub(super) fn renewals(&mut self, only: Option<&str>) -> Vec<(Arc<str>, Vec<Renew>)> {
        let mut tags: HashMap<&Arc<str>, Vec<Renew>, RandomState> = HashMap::default();
        for (id, lease) in &mut self.open {
            let wanted = |admit: &&Admit| only.is_none_or(|tag| *admit.tag == *tag);
            for admit in lease.admits.iter().filter(wanted) {
                let holder = if id.attempt == 0 { Holder::Request } else { Holder::Attempt };
                let held = |charge: &&Charge| {
                    charge.rule.algorithm == Algorithm::Permits && charge.holder == holder
                };
                let charges: Vec<Charge> = admit.charges.iter().filter(held).copied().collect();
                let member = admit.member && id.attempt > 0;
                if !member && charges.is_empty() {
                    continue;
                }
                let scopes = if charges.is_empty() { Vec::new() } else { admit.scopes.clone() };
                lease.known = true;
                let renew = Renew { id: *id, scopes, charges, member };
                tags.entry(&admit.tag).or_default().push(renew);
            }
        }
        let mut renewals = Vec::with_capacity(tags.len());
        for (tag, mut leases) in tags {
            while !leases.is_empty() {
                let rest = leases.split_off(leases.len().min(AT_ONCE));
                renewals.push((Arc::clone(tag), std::mem::replace(&mut leases, rest)));
            }
        }
        renewals
    }
}
