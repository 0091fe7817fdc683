//! Pools and routes: tiers that hold something, fallbacks that end, routes that can be reached.

use std::collections::BTreeMap;

use super::{Check, Path, root, shown};
use crate::config::document::{Pool, Span};
use crate::domain::Glob;

impl Check<'_> {
    pub(super) fn pools(&mut self) {
        let fleet = self.fleet;
        if fleet.pools.is_empty() {
            let hint = "add a pool, such as pools: { fast: { tiers: [[my-target]] } }";
            self.fault(&root("pools"), "there is no pool, so nothing could be served", Some(hint));
        }
        for (name, pool) in &fleet.pools {
            let path = root("pools").field(name);
            self.tiers(pool, &path);
            for (index, next) in pool.fallback.iter().enumerate() {
                self.pool_named(&path.field("fallback").item(index), next);
            }
            let on = &pool.fallback_on;
            let on =
                [("context_length", &on.context_length), ("content_filter", &on.content_filter)];
            for (field, next) in on {
                if let Some(next) = next {
                    self.pool_named(&path.field("fallback_on").field(field), next);
                }
            }
            self.clocks(pool, &path);
        }
        self.cycles(&fleet.pools);
    }

    fn tiers(&mut self, pool: &Pool, path: &Path) {
        for (t, tier) in pool.tiers.iter().enumerate() {
            for (i, name) in tier.iter().enumerate() {
                let here = path.field("tiers").item(t).item(i);
                if tier.iter().take(i).any(|other| other == name) {
                    let what = format!("`{}` stands twice in this tier", shown(name));
                    self.fault(&here, what, Some("give the target a weight instead"));
                }
                if self.fleet.targets.contains_key(name) {
                    continue;
                }
                if self.fleet.pools.contains_key(name) {
                    let what = format!("`{}` is a pool", shown(name));
                    self.fault(&here, what, Some("tiers hold targets; `fallback` names pools"));
                } else {
                    let known = self.fleet.targets.keys().map(String::as_str);
                    self.dangling(&here, "target", name, known);
                }
            }
        }
    }

    fn clocks(&mut self, pool: &Pool, path: &Path) {
        let clocks = &pool.timeouts;
        let clocks = [
            ("connect", clocks.connect),
            ("first_token", clocks.first_token),
            ("answer", clocks.answer),
            ("idle", clocks.idle),
            ("total", clocks.total),
        ];
        for (field, clock) in clocks {
            if clock.is_some_and(|Span(duration)| duration.is_zero()) {
                let what = "0 would fail every request at once";
                let hint = "give a longer time, or leave it out for the default";
                self.fault(&path.field("timeouts").field(field), what, Some(hint));
            }
        }
        if pool.retry.attempts == Some(0) {
            let what = "0 attempts would never ask a provider";
            let hint = "the first attempt counts: 1 means no retry";
            self.fault(&path.field("retry").field("attempts"), what, Some(hint));
        }
    }

    pub(super) fn pool_named(&mut self, path: &Path, name: &str) {
        if !self.fleet.pools.contains_key(name) {
            let known = self.fleet.pools.keys().map(String::as_str);
            self.dangling(path, "pool", name, known);
        }
    }

    /// Every pool from which fallbacks lead back to itself.
    fn cycles(&mut self, pools: &BTreeMap<String, Pool>) {
        // Colours of a depth-first search, kept on a stack of our own: 1 is open, 2 is done.
        let mut colours: BTreeMap<&str, u8> = BTreeMap::new();
        for start in pools.keys() {
            let mut stack = vec![(start.as_str(), 0)];
            while let Some((name, step)) = stack.pop() {
                if step == 0 && colours.insert(name, 1).is_some() {
                    colours.insert(name, 2);
                    continue;
                }
                let next = pools.get(name).and_then(|pool| fallbacks(pool).nth(step));
                let Some(next) = next else {
                    colours.insert(name, 2);
                    continue;
                };
                stack.push((name, step + 1));
                match colours.get(next) {
                    Some(1) => {
                        let from = stack.iter().position(|(open, _)| *open == next).unwrap_or(0);
                        let round = stack.iter().skip(from).map(|(open, _)| *open).chain([next]);
                        let round = round.collect::<Vec<_>>().join(" -> ");
                        let what = format!("fallbacks lead round in a circle: {round}");
                        self.fault(&root("pools").field(name), what, Some("remove one of them"));
                    }
                    None if pools.contains_key(next) => stack.push((next, 0)),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn routes(&mut self) {
        let routes = &self.fleet.routes;
        let globs: Vec<_> =
            routes.iter().map(|route| route.matches.model.as_deref().map(Glob::new)).collect();
        for (index, (route, glob)) in routes.iter().zip(&globs).enumerate() {
            let path = root("routes").item(index);
            self.pool_named(&path.field("pool"), &route.pool);
            match (&route.matches.model, glob) {
                (Some(model), Some(glob)) => {
                    self.plain(&path.field("match").field("model"), model);
                    let earlier = globs.iter().take(index).position(|earlier| {
                        earlier.as_ref().is_some_and(|earlier| earlier.covers(glob))
                    });
                    let by = earlier.and_then(|earlier| routes.get(earlier));
                    if let (Some(by), Some(at)) = (by, earlier) {
                        let what = format!(
                            "nothing reaches `{}`: routes[{at}] `{}` takes all of it",
                            shown(&route.name),
                            shown(&by.name),
                        );
                        let hint = "put the narrower one first, or remove it";
                        self.fault(&path, what, Some(hint));
                    }
                }
                _ => {
                    let hint = "write match: { model: \"*\" } to match every request";
                    self.fault(&path.field("match"), "has no condition", Some(hint));
                }
            }
        }
    }
}

fn fallbacks(pool: &Pool) -> impl Iterator<Item = &str> {
    let on = &pool.fallback_on;
    let listed = pool.fallback.iter();
    listed.chain(&on.context_length).chain(&on.content_filter).map(String::as_str)
}
