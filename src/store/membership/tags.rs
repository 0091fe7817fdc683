//! The tags that a node uses, and what the registry knows of that.
//!
//! Two senders tell the registry: the first admission of a tag, on its worker's connection, and the
//! tick. They may overtake each other only where a tag that was about to leave is used again, and
//! then the next tick lists it once more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

/// Tags that are kept track of. Beyond, a tag is not listed: what a lost node left there is swept by
/// whoever uses that tag too, and its permits end by themselves.
const MOST: usize = 100_000;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tags {
    known: HashMap<Arc<str>, Known, RandomState>,
    /// In which order they are looked after. One that left stays until its turn comes, and is known
    /// by its number.
    turns: VecDeque<(u64, Arc<str>)>,
    number: u64,
    /// Those that are not `Listed`, each once, and perhaps others.
    untold: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Known {
    state: State,
    turn: u64,
    /// Whether it stands in `untold`.
    queued: bool,
    used_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The registry does not know it yet.
    New,
    /// It does.
    Listed,
    /// It does, and is to forget it.
    Leaving,
}

/// What the registry is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Tags that are used no more.
    pub gone: Vec<Arc<str>>,
    /// Tags that are used from now on.
    pub begun: Vec<Arc<str>>,
}

impl Tags {
    pub(super) fn uses(&mut self, tag: &Arc<str>, now: Duration) -> bool {
        if let Some(known) = self.known.get_mut(tag) {
            known.used_at = now;
            if known.state == State::Leaving {
                known.state = State::New;
            }
            return known.state == State::New;
        }
        if self.known.len() >= MOST {
            return false;
        }
        self.number += 1;
        let known = Known { state: State::New, turn: self.number, queued: true, used_at: now };
        self.known.insert(Arc::clone(tag), known);
        self.turns.push_back((self.number, Arc::clone(tag)));
        self.untold.push_back(Arc::clone(tag));
        true
    }

    pub(super) fn change(&mut self, most: usize) -> Change {
        let mut change = Change::default();
        while change.begun.len() < most && change.gone.len() < most {
            let Some(tag) = self.untold.pop_front() else { break };
            let Some(known) = self.known.get_mut(&tag) else { continue };
            match known.state {
                State::New => change.begun.push(tag),
                State::Leaving => change.gone.push(tag),
                State::Listed => known.queued = false,
            }
        }
        // Until it is acknowledged, it is to be told again.
        self.untold.extend(change.begun.iter().chain(&change.gone).map(Arc::clone));
        change
    }

    pub(super) fn acknowledge(&mut self, change: &Change) {
        for tag in &change.begun {
            if let Some(known) = self.known.get_mut(tag)
                && known.state == State::New
            {
                known.state = State::Listed;
            }
        }
        for tag in &change.gone {
            match self.known.get_mut(tag) {
                Some(known) if known.state == State::Leaving => {
                    self.known.remove(tag);
                }
                // It was used again in between, and may have been listed before it was forgotten.
                Some(known) => {
                    known.state = State::New;
                    queue(&mut self.untold, tag, known);
                }
                None => {}
            }
        }
    }

    pub(super) fn relist(&mut self) {
        self.untold.clear();
        for (tag, known) in &mut self.known {
            if known.state == State::Listed {
                known.state = State::New;
            }
            known.queued = false;
            queue(&mut self.untold, tag, known);
        }
    }

    pub(super) fn look_after(&mut self, most: usize) -> Vec<Arc<str>> {
        let mut tags = Vec::new();
        for _ in 0..self.turns.len() {
            if tags.len() >= most {
                break;
            }
            let Some((number, tag)) = self.turns.pop_front() else { break };
            if self.known.get(&tag).is_some_and(|known| known.turn == number) {
                tags.push(Arc::clone(&tag));
                self.turns.push_back((number, tag));
            }
        }
        tags
    }

    pub(super) fn leave(&mut self, tag: &Arc<str>, before: Duration) {
        if let Some(known) = self.known.get_mut(tag)
            && known.used_at < before
            && known.state == State::Listed
        {
            known.state = State::Leaving;
            queue(&mut self.untold, tag, known);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

fn queue(untold: &mut VecDeque<Arc<str>>, tag: &Arc<str>, known: &mut Known) {
    if !known.queued {
        known.queued = true;
        untold.push_back(Arc::clone(tag));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn tag(name: &str) -> Arc<str> {
        name.into()
    }

    fn begun(name: &str) -> Change {
        Change { begun: vec![tag(name)], ..Change::default() }
    }

    fn gone(name: &str) -> Change {
        Change { gone: vec![tag(name)], ..Change::default() }
    }

    #[test]
    fn a_tag_is_told_until_it_is_acknowledged() {
        let mut tags = Tags::default();
        assert!(tags.uses(&tag("a"), S));
        assert_eq!(tags.change(10), begun("a"));
        assert!(tags.uses(&tag("a"), S), "nobody has heard of it yet");
        assert_eq!(tags.change(10), begun("a"));
        tags.acknowledge(&begun("a"));
        assert!(!tags.uses(&tag("a"), S));
        assert_eq!(tags.change(10), Change::default());
    }

    #[test]
    fn only_a_tag_that_was_not_used_for_long_leaves() {
        let mut tags = Tags::default();
        assert!(tags.uses(&tag("a"), S));
        tags.acknowledge(&begun("a"));
        tags.leave(&tag("a"), S);
        assert_eq!(tags.change(10), Change::default());
        tags.leave(&tag("a"), 2 * S);
        assert_eq!(tags.change(10), gone("a"));
        tags.acknowledge(&gone("a"));
        assert_eq!((tags.len(), tags.look_after(10)), (0, vec![]));
    }

    #[test]
    fn a_tag_that_is_used_while_it_leaves_is_listed_again() {
        let mut tags = Tags::default();
        assert!(tags.uses(&tag("a"), S));
        tags.acknowledge(&begun("a"));
        tags.leave(&tag("a"), 2 * S);
        let leaving = tags.change(10);
        // Its first admission lists it, and may be overtaken by the tick that takes it off.
        assert!(tags.uses(&tag("a"), 3 * S));
        tags.acknowledge(&begun("a"));
        tags.acknowledge(&leaving);
        assert_eq!(tags.change(10), begun("a"));
    }

    #[test]
    fn a_registry_that_was_emptied_is_told_everything_again() {
        let mut tags = Tags::default();
        for name in ["a", "b"] {
            assert!(tags.uses(&tag(name), S));
            tags.acknowledge(&begun(name));
        }
        tags.relist();
        let change = tags.change(1);
        assert_eq!(change.begun.len(), 1, "in pieces");
        tags.acknowledge(&change);
        assert_eq!(tags.change(10).begun.len(), 1);
    }

    #[test]
    fn each_tag_gets_its_turn() {
        let mut tags = Tags::default();
        assert!(["a", "b", "c"].iter().all(|name| tags.uses(&tag(name), S)));
        let mut seen: Vec<_> = (0..3).flat_map(|_| tags.look_after(1)).collect();
        seen.sort();
        assert_eq!(seen, [tag("a"), tag("b"), tag("c")]);
        assert_eq!(tags.look_after(10).len(), 3);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut tags = Tags::default();
        for number in 0..=MOST {
            assert_eq!(tags.uses(&tag(&number.to_string()), S), number < MOST);
        }
        assert_eq!(tags.len(), MOST);
    }
}
