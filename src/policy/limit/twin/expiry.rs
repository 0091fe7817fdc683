//! What is cleared away when: a queue of times, looked at by each command, a few entries at a time.
//!
//! A scope has one entry from its first counter to its end. When its time comes and it still counts
//! something, the entry moves to the time when it will not; so a busy scope costs one look in each
//! of its windows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::tag::{Scope, Tag};
use super::{MAX_SCOPES, Twin};

/// How often a tag is tidied.
const TIDY_MS: u64 = 60_000;
/// How many entries a command looks at: more than it can add.
const AT_ONCE: usize = 8;

/// A time and a tag.
type OfTag = (u64, Arc<str>);
/// A time, a tag, and one of its scopes.
type OfScope = (u64, Arc<str>, Arc<str>);

/// The queues: each tag and each scope has one entry.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    tags: BinaryHeap<Reverse<OfTag>>,
    scopes: BinaryHeap<Reverse<OfScope>>,
}

/// How large a tag was before a command.
pub(super) struct Size {
    scopes: usize,
    rows: usize,
}

#[cfg(test)]
impl Expiry {
    pub(super) fn len(&self) -> usize {
        self.scopes.len() + self.tags.len()
    }
}

impl Twin {
    /// Clears a few things away, makes room, and sees to it that the tag is there.
    pub(super) fn enter(&mut self, tag: &Arc<str>, now: u64) -> Size {
        for _ in 0..AT_ONCE {
            match self.expiry.scopes.peek() {
                Some(Reverse((due, _, _))) if *due <= now => self.expire_scope(now),
                _ => break,
            }
        }
        if self.expiry.tags.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            self.tidy_tag(now);
        }
        if !self.tags.contains_key(tag) {
            self.tags.insert(Arc::clone(tag), Tag::default());
            let due = now.saturating_add(TIDY_MS);
            self.expiry.tags.push(Reverse((due, Arc::clone(tag))));
        }
        let tag = self.tag(tag);
        Size { scopes: tag.scopes.len(), rows: tag.usage.len() }
    }

    /// The tag, which `enter` has made.
    pub(super) fn tag(&mut self, tag: &Arc<str>) -> &mut Tag {
        self.tags.entry(Arc::clone(tag)).or_default()
    }

    /// Queues the scopes that a command made, and keeps within the bound.
    pub(super) fn leave(&mut self, tag: &Arc<str>, scopes: &[Arc<str>], before: Size, now: u64) {
        let Some(state) = self.tags.get_mut(tag) else { return };
        self.rows = (self.rows + state.usage.len()).saturating_sub(before.rows);
        if state.scopes.len() > before.scopes {
            self.scopes += state.scopes.len() - before.scopes;
            for scope in scopes {
                if let Some(kept) = state.scopes.get_mut(scope).filter(|kept| !kept.queued) {
                    kept.queued = true;
                    let due = kept.empty_at().max(now);
                    let entry = (due, Arc::clone(tag), Arc::clone(scope));
                    self.expiry.scopes.push(Reverse(entry));
                }
            }
        }
        while self.scopes > MAX_SCOPES {
            self.forget_scope(now);
        }
    }

    /// Looks at the scope whose time comes first: it goes, or its time is moved.
    fn expire_scope(&mut self, now: u64) {
        let Some(Reverse((_, tag, scope))) = self.expiry.scopes.pop() else { return };
        let Some(state) = self.tags.get_mut(&tag) else { return };
        match state.scopes.get(&scope).map(Scope::empty_at) {
            Some(empty_at) if empty_at > now => {
                self.expiry.scopes.push(Reverse((empty_at, tag, scope)));
            }
            Some(_) => {
                state.scopes.remove(&scope);
                self.scopes = self.scopes.saturating_sub(1);
            }
            None => {}
        }
    }

    /// Tidies the tag whose turn it is; an empty one goes.
    fn tidy_tag(&mut self, now: u64) {
        let Some(Reverse((_, tag))) = self.expiry.tags.pop() else { return };
        let Some(state) = self.tags.get_mut(&tag) else { return };
        let rows = state.usage.len();
        state.tidy(now);
        self.rows = (self.rows + state.usage.len()).saturating_sub(rows);
        if state.is_empty() {
            self.tags.remove(&tag);
        } else {
            self.expiry.tags.push(Reverse((now.saturating_add(TIDY_MS), tag)));
        }
    }

    /// Forgets the scope that would be empty the soonest.
    fn forget_scope(&mut self, now: u64) {
        let Some(Reverse((_, tag, scope))) = self.expiry.scopes.pop() else {
            // Every scope has its entry, so without one there is none.
            self.scopes = 0;
            return;
        };
        if let Some(gone) = self.tags.get_mut(&tag).and_then(|state| state.scopes.remove(&scope)) {
            self.scopes = self.scopes.saturating_sub(1);
            self.forgotten += u64::from(gone.empty_at() > now);
        }
    }
}
