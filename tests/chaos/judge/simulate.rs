//! Histories made up: a fleet of nodes, each some way from the store and from the wall, that dies
//! and comes back, with clients that wait or leave. The store is the reference limiter, or one that
//! is broken in a chosen way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::dice::Dice;
use super::history::{
    Algorithm, Ask, Attempt, End, Ending, Fault, History, Limit, Metric, Micros, Patience,
    Recorded, SECOND, Usage, What,
};
use super::reference::{Reference, Rule};

const MILLI: Micros = 1_000;
const NODES: usize = 5;
const LENGTH: Micros = 20 * SECOND;
/// The order in which limits are in a history, and rules in its store.
const REQUESTS: usize = 0;
const TOKENS: usize = 1;
const PERMITS: usize = 2;
const BUDGET: usize = 3;
const BUCKET: usize = 4;
const ALL_REQUESTS: usize = 5;
const ALL_TOKENS: usize = 6;

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// One more than the limit.
    AdmitsOneTooMany,
    /// Forgets a window too early.
    ForgetsEarly,
    /// Counts this many nodes apart.
    CountsNodesApart,
    /// One less than the limit.
    RefusesOneTooMany,
    /// Remembers a window too long.
    ForgetsLate,
    /// Keeps the permits of clients that left.
    LeaksPermits,
    /// Counts what it refused.
    ChargesRefusals,
    /// Takes the difference to the truth twice.
    SettlesTwice,
    /// Keeps every estimate.
    NeverSettles,
}

/// What happens to the fleet besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) kills: bool,
    pub(crate) empties: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Decide(usize),
    Attempt(usize),
    Finish(usize),
    Leave(usize),
    Release(usize),
    Settle(usize),
    Lapse(usize),
    Kill(usize),
    Empty,
}

/// A request on its way.
struct Flight {
    ask: Ask,
    stream: Micros,
    truth: Usage,
    attempt: Option<Attempt>,
    admitted: bool,
    over: bool,
    held: bool,
    settled: bool,
}

struct World {
    broken: Broken,
    dice: Dice,
    store: Reference,
    /// The stores of nodes that count apart.
    apart: Vec<Reference>,
    /// The store's clock, less the history's.
    skew: Micros,
    flights: Vec<Flight>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    count: u64,
    faults: Vec<Fault>,
    rows: BTreeMap<String, Recorded>,
    patience: Patience,
}

fn limits() -> Vec<Limit> {
    let limit = |name: &str, who: &str, metric, algorithm, limit| Limit {
        name: name.to_owned(),
        covers: if who.is_empty() { Vec::new() } else { vec![who.to_owned()] },
        metric,
        algorithm,
        limit,
        bound: 0,
    };
    let window = |length, slots| Algorithm::Window { length, slots };
    vec![
        limit("requests", "a", Metric::Requests, window(2 * SECOND, 20), 40),
        limit("tokens", "b", Metric::Tokens, window(3 * SECOND, 30), 3000),
        limit("permits", "c", Metric::Concurrency, Algorithm::Permits, 12),
        limit("budget", "d", Metric::Cost, Algorithm::Budget, 10_000),
        limit("bucket", "e", Metric::Requests, Algorithm::Bucket { window: SECOND, burst: 25 }, 15),
        limit("all requests", "", Metric::Requests, window(3600 * SECOND, 60), 1_000_000),
        limit("all tokens", "", Metric::Tokens, window(3600 * SECOND, 60), 1_000_000_000),
    ]
}

fn rules(broken: Broken) -> Vec<Rule> {
    let slots = |slots: u64| match broken {
        Broken::ForgetsEarly => slots - 3,
        Broken::ForgetsLate => slots * 2,
        _ => slots,
    };
    let size = |limit: u64| match broken {
        Broken::AdmitsOneTooMany => limit + 1,
        Broken::RefusesOneTooMany => limit - 1,
        _ => limit,
    };
    let slot = 100 * MILLI;
    vec![
        Rule::Window { slot, slots: slots(20), limit: size(40) },
        Rule::Window { slot, slots: slots(30), limit: 3000 },
        Rule::Permits { limit: size(12) },
        Rule::Budget { limit: 10_000 },
        Rule::Bucket { window: SECOND, limit: 15, burst: size(25) },
        Rule::Window { slot: 60 * SECOND, slots: 60, limit: 1_000_000 },
        Rule::Window { slot: 60 * SECOND, slots: 60, limit: 1_000_000_000 },
    ]
}

/// Makes up a history; the same one for the same seed.
pub(crate) fn simulate(seed: u64, broken: Broken, weather: Weather) -> History {
    let mut dice = Dice::new(seed);
    let skew = dice.below(1_000_000) * SECOND + dice.below(SECOND);
    let mut world = World {
        broken,
        store: Reference::new(rules(broken)),
        apart: vec![Reference::new(rules(broken)); 2],
        skew,
        flights: Vec::new(),
        events: BinaryHeap::new(),
        count: 0,
        faults: Vec::new(),
        rows: BTreeMap::new(),
        patience: Patience { lease: 3 * SECOND, recovery: SECOND, ..Patience::default() },
        dice,
    };
    world.demand();
    if weather.kills {
        for _ in 0..4 {
            let (at, node) = (world.dice.below(LENGTH), world.dice.below(NODES as u64));
            world.at(at, Event::Kill(usize::try_from(node).expect("a small number")));
        }
    }
    if weather.empties {
        let at = world.dice.within(LENGTH / 3, LENGTH / 2);
        world.at(at, Event::Empty);
    }
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        world.happen(now, event);
    }
    world.end(seed)
}

impl World {
    fn at(&mut self, when: Micros, event: Event) {
        self.count += 1;
        self.events.push(Reverse((when, self.count, event)));
    }

    /// The way between two parties: short, seldom long.
    fn way(&mut self) -> Micros {
        if self.dice.once_in(50) {
            self.dice.within(5, 40) * MILLI
        } else {
            self.dice.within(100, 3000)
        }
    }

    /// Crowds, and silence between them.
    fn demand(&mut self) {
        for who in ["a", "b", "c", "d", "e"] {
            let mut now = self.dice.below(SECOND);
            while now < LENGTH {
                let crowd = now + self.dice.within(1, 8) * SECOND;
                while now < crowd {
                    now += self.dice.below(60 * MILLI);
                    self.ask(who, now);
                }
                now += self.dice.within(0, 5) * SECOND;
            }
        }
    }

    fn ask(&mut self, who: &str, sent: Micros) {
        let node = usize::try_from(self.dice.below(NODES as u64)).expect("a small number");
        let (input, most) = (self.dice.within(10, 40), self.dice.within(50, 400));
        let output = self.dice.within(0, most);
        let id = self.flights.len() as u64;
        let reserved = Usage { input, output: most, cost: input + 2 * most };
        let ask = Ask {
            id,
            who: who.to_owned(),
            row: who.to_owned(),
            node,
            sent,
            over: sent,
            end: End::Broken,
            least: reserved,
            most: reserved,
        };
        let stream = self.dice.within(1, 800) * MILLI;
        let truth = Usage { input, output, cost: input + 2 * output };
        self.flights.push(Flight {
            ask,
            stream,
            truth,
            attempt: None,
            admitted: false,
            over: false,
            held: false,
            settled: false,
        });
        let at = sent + self.way() + self.way();
        let flight = self.flights.len() - 1;
        self.at(at, Event::Decide(flight));
        if self.dice.once_in(8) {
            let leave = sent + self.dice.below(600 * MILLI);
            self.at(leave, Event::Leave(flight));
        }
    }

    fn demands(&self, flight: usize) -> Vec<(usize, u64)> {
        let ask = &self.flights[flight].ask;
        let tokens = Metric::Tokens.of(ask.most);
        let own = match ask.who.as_str() {
            "a" => (REQUESTS, 1),
            "b" => (TOKENS, tokens),
            "c" => (PERMITS, 1),
            "d" => (BUDGET, ask.most.cost),
            _ => (BUCKET, 1),
        };
        vec![own, (ALL_REQUESTS, 1), (ALL_TOKENS, tokens)]
    }

    fn happen(&mut self, now: Micros, event: Event) {
        match event {
            Event::Decide(flight) => self.decide(now, flight),
            Event::Attempt(flight) => {
                let it = &mut self.flights[flight];
                let ask = it.ask.id;
                let (told, until) = (Usage::default(), now);
                it.attempt = Some(Attempt { ask, at: now, until, told, whole: false });
                if !it.over {
                    let finish = now + it.stream;
                    self.at(finish, Event::Finish(flight));
                }
            }
            Event::Finish(flight) => {
                if !self.flights[flight].over {
                    let truth = self.flights[flight].truth;
                    let attempt = self.flights[flight].attempt.as_mut().expect("it was begun");
                    (attempt.until, attempt.told, attempt.whole) = (now, truth, true);
                    let end = End::Answered { status: 200, code: String::new(), whole: true };
                    self.over(now, flight, end);
                }
            }
            Event::Leave(flight) => {
                if !self.flights[flight].over {
                    self.give_up(now, flight);
                    self.over(now, flight, End::Left);
                }
            }
            Event::Release(flight) => self.release(flight),
            Event::Settle(flight) => self.settle(flight),
            Event::Lapse(flight) => {
                self.release(flight);
                self.lapse(flight);
            }
            Event::Kill(node) => self.kill(now, node),
            Event::Empty => {
                self.store.clear();
                self.rows.clear();
                let (from, until) = (now - MILLI, now + MILLI);
                self.faults.push(Fault { what: What::StoreEmptied, from, until });
                for it in &mut self.flights {
                    // What it knew of them is gone; their permits come back with the next renewal.
                    it.settled |= it.admitted;
                    if it.held {
                        self.store.take(now + self.skew, it.ask.id, PERMITS, 1);
                    }
                }
            }
        }
    }

    fn decide(&mut self, now: Micros, flight: usize) {
        if self.flights[flight].over {
            return;
        }
        let demand = self.demands(flight);
        let (id, node) = (self.flights[flight].ask.id, self.flights[flight].ask.node);
        let at = now + self.skew;
        let store = match self.broken {
            Broken::CountsNodesApart => &mut self.apart[node % 2],
            _ => &mut self.store,
        };
        let verdict = store.admit(at, id, &demand);
        if self.broken == Broken::CountsNodesApart && verdict.is_ok() {
            for (rule, amount) in &demand {
                self.store.take(at, id, *rule, *amount);
            }
        }
        match verdict {
            Ok(()) => {
                let it = &mut self.flights[flight];
                (it.admitted, it.held) = (true, it.ask.who == "c");
                let attempt = now + self.way() + self.way();
                self.at(attempt, Event::Attempt(flight));
            }
            Err(rule) => {
                if self.broken == Broken::ChargesRefusals && rule != PERMITS {
                    self.store.take(at, id + 1_000_000, rule, demand[0].1);
                }
                let code = match rule {
                    REQUESTS | BUCKET => "rate_limited",
                    TOKENS => "tokens_limited",
                    PERMITS => "concurrency_limited",
                    _ => "budget_exceeded",
                };
                let end = End::Answered { status: 429, code: code.to_owned(), whole: true };
                self.over(now, flight, end);
            }
        }
    }

    /// The end of a request at its node.
    fn over(&mut self, now: Micros, flight: usize, end: End) {
        let left = end == End::Left;
        let back = if left { now } else { now + self.way() };
        let (release, settle) = (self.way() + 5 * MILLI, self.way() + self.dice.below(100 * MILLI));
        let leaks = self.broken == Broken::LeaksPermits && left;
        let it = &mut self.flights[flight];
        (it.over, it.ask.over, it.ask.end) = (true, back, end);
        if it.admitted {
            if !leaks {
                self.at(now + release, Event::Release(flight));
            }
            self.at(now + settle, Event::Settle(flight));
        }
    }

    /// The wall sees that nobody wants the answer any more.
    fn give_up(&mut self, now: Micros, flight: usize) {
        let it = &mut self.flights[flight];
        if let Some(attempt) = &mut it.attempt {
            attempt.until = now.max(attempt.at);
            attempt.told = Usage { input: it.truth.input, output: 0, cost: it.truth.input };
        }
    }

    fn release(&mut self, flight: usize) {
        let it = &mut self.flights[flight];
        if std::mem::take(&mut it.held) {
            self.store.settle(it.ask.id, PERMITS, 0);
            self.apart.iter_mut().for_each(|store| store.settle(it.ask.id, PERMITS, 0));
        }
    }

    /// What was really used; of an answer that was given up, what was estimated.
    fn settle(&mut self, flight: usize) {
        let it = &mut self.flights[flight];
        if std::mem::replace(&mut it.settled, true) || self.broken == Broken::NeverSettles {
            return;
        }
        let id = it.ask.id;
        let used = it.attempt.as_ref().map(|attempt| attempt.told).unwrap_or_default();
        let attempts = u64::from(it.attempt.is_some());
        let row = self.rows.entry(it.ask.row.clone()).or_default();
        let times = if self.broken == Broken::SettlesTwice { 2 } else { 1 };
        for _ in 0..times {
            row.requests += 1;
            row.attempts += attempts;
            row.usage = row.usage.plus(used);
        }
        let refunded = |reserved: u64, used: u64| match self.broken {
            Broken::SettlesTwice => used.saturating_sub(reserved - used),
            _ => used,
        };
        let (tokens, most) = (Metric::Tokens.of(used), Metric::Tokens.of(it.ask.most));
        let cost = refunded(it.ask.most.cost, used.cost);
        for store in self.apart.iter_mut().chain([&mut self.store]) {
            store.settle(id, TOKENS, refunded(most, tokens));
            store.settle(id, ALL_TOKENS, refunded(most, tokens));
            store.settle(id, BUDGET, cost);
        }
    }

    /// The estimate of a request whose node died.
    fn lapse(&mut self, flight: usize) {
        let it = &mut self.flights[flight];
        if !std::mem::replace(&mut it.settled, true) {
            let row = self.rows.entry(it.ask.row.clone()).or_default();
            row.attempts += 1;
            row.node_lost += 1;
            row.usage = row.usage.plus(it.ask.most);
        }
    }

    fn kill(&mut self, now: Micros, node: usize) {
        let until = now + 500 * MILLI;
        self.faults.push(Fault { what: What::NodeKilled(node), from: now, until });
        for flight in 0..self.flights.len() {
            let it = &self.flights[flight];
            if it.ask.node != node || it.settled || it.ask.sent > until {
                continue;
            }
            if it.ask.sent >= now {
                // Nobody listens.
                self.flights[flight].ask.over = self.flights[flight].ask.sent + MILLI;
                self.flights[flight].over = true;
                continue;
            }
            let (admitted, over) = (it.admitted, it.over);
            if admitted {
                let renewed = self.dice.below(self.patience.lease / 3);
                let lapse = now + self.patience.lease - renewed;
                self.at(lapse, Event::Lapse(flight));
            }
            if !over {
                self.give_up(now, flight);
                let it = &mut self.flights[flight];
                (it.over, it.ask.over) = (true, now + MILLI);
            }
            // Its node no longer settles, nor releases.
            let mut events = std::mem::take(&mut self.events).into_vec();
            events.retain(|Reverse((_, _, event))| {
                !matches!(event, Event::Settle(it) | Event::Release(it) if *it == flight)
            });
            self.events = events.into();
        }
    }

    fn end(mut self, seed: u64) -> History {
        let now = LENGTH + 30 * SECOND;
        let limits = limits();
        let standings = limits
            .iter()
            .enumerate()
            .map(|(rule, limit)| (limit.name.clone(), self.store.used(now + self.skew, rule)));
        let ending = Ending {
            from: now,
            until: now,
            standings: standings.collect(),
            rows: Some(std::mem::take(&mut self.rows)),
        };
        let asks = self.flights.iter().map(|flight| flight.ask.clone());
        History {
            seed,
            asks: asks.collect(),
            attempts: self.flights.into_iter().filter_map(|flight| flight.attempt).collect(),
            limits,
            faults: self.faults,
            ending: Some(ending),
            patience: self.patience,
        }
    }
}
