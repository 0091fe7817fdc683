//! What is broken, and how: nodes die and hang, Redis dies, hangs and forgets, the network between
//! them drops and delays. One thing at a time, each for a while, all of it written down.

use std::sync::Arc;
use std::time::Duration;

use crate::judge::dice::Dice;
use crate::judge::history::{Fault, Micros, What};
use crate::support::chaos::ChaosProxy;
use crate::support::crowd::Crowd;
use crate::support::process::Process;
use crate::support::redis::{Kind, Server};

/// Nodes of the fleet.
pub(crate) const NODES: usize = 4;

/// Nodes, the network to Redis, and Redis.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) faults: Vec<Fault>,
    nodes: Vec<Process>,
    /// Of nodes that are gone: what they said last.
    past: String,
    /// One for each node.
    proxies: Vec<ChaosProxy>,
    document: String,
    lease: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Break {
    KillNode,
    KillNodeWithoutStore,
    StopNode,
    CutOffNode,
    SlowNode,
    PauseStore,
    RestartStore,
    EmptyStore,
    FlushScripts,
    ResetConnections,
    DelayStore,
}

const BREAKS: [Break; 11] = [
    Break::KillNode,
    Break::KillNodeWithoutStore,
    Break::PauseStore,
    Break::CutOffNode,
    Break::FlushScripts,
    Break::RestartStore,
    Break::StopNode,
    Break::EmptyStore,
    Break::SlowNode,
    Break::ResetConnections,
    Break::DelayStore,
];

impl World {
    pub(crate) fn start(crowd: &Crowd, document: &str, lease: Duration) -> Self {
        let server =
            Server::start_as(Kind::Redis7, &["--appendonly", "yes", "--appendfsync", "no"]);
        let target = ([127, 0, 0, 1], server.port).into();
        let proxies: Vec<_> = (0..NODES).map(|_| ChaosProxy::start(target)).collect();
        let document = document.to_owned();
        let nodes = proxies.iter().map(|proxy| node(proxy, &document, lease)).collect();
        let (faults, past) = (Vec::new(), String::new());
        let world = Self { server, faults, nodes, past, proxies, document, lease };
        world.meet(crowd);
        world
    }

    /// Breaks one thing after the other for so long, calm between them.
    pub(crate) fn breaks(
        &mut self,
        crowd: &Arc<Crowd>,
        mut dice: Dice,
        load: Duration,
        calm: Duration,
    ) {
        let load = Micros::try_from(load.as_micros()).expect("a time");
        // Each kind once before any comes again, in an order of chance.
        let mut left: Vec<Break> = Vec::new();
        loop {
            let calm = u64::try_from(calm.as_millis()).expect("a short time");
            // Short as often as long: some things break while others are hardly mended.
            let calm = if dice.once_in(2) { calm } else { calm.min(3000) };
            wait(Duration::from_millis(dice.within(500, calm)));
            if crowd.now() >= load {
                return;
            }
            if left.is_empty() {
                left = BREAKS.to_vec();
            }
            let next =
                left.swap_remove(usize::try_from(dice.below(left.len() as u64)).expect("small"));
            let node = usize::try_from(dice.below(NODES as u64)).expect("a small number");
            // Some are shorter than a lease, some longer.
            let time = Duration::from_millis(dice.within(200, 3000));
            let from = crowd.now();
            let what = self.apply(next, node, time, crowd);
            self.faults.push(Fault { what, from, until: crowd.now() });
        }
    }

    fn apply(&mut self, what: Break, node: usize, time: Duration, crowd: &Crowd) -> What {
        match what {
            Break::KillNode => {
                self.nodes[node].signal("KILL");
                wait(time);
                self.revive(node, crowd);
                What::NodeKilled(node)
            }
            Break::KillNodeWithoutStore => {
                self.server.pause();
                wait(time / 2);
                let from = crowd.now();
                self.nodes[node].signal("KILL");
                wait(time / 2);
                self.server.resume();
                self.revive(node, crowd);
                let until = crowd.now();
                self.faults.push(Fault { what: What::NodeKilled(node), from, until });
                What::StoreAway
            }
            Break::StopNode => {
                self.nodes[node].signal("STOP");
                wait(time);
                self.nodes[node].signal("CONT");
                What::NodeStopped(node)
            }
            Break::CutOffNode => {
                self.proxies[node].half_open();
                wait(time);
                self.proxies[node].pass();
                self.proxies[node].cut();
                What::NodeCutOff(node)
            }
            Break::SlowNode => {
                self.proxies[node].delay(time / 8);
                wait(time);
                self.proxies[node].pass();
                What::NodeCutOff(node)
            }
            Break::PauseStore => {
                self.server.pause();
                wait(time);
                self.server.resume();
                What::StoreAway
            }
            Break::RestartStore => {
                self.server.kill();
                wait(time);
                self.server.restart();
                What::StoreAway
            }
            Break::EmptyStore => {
                let () = self.server.ask(&["FLUSHALL"]);
                self.server.kill();
                wait(time);
                self.server.restart();
                What::StoreEmptied
            }
            Break::FlushScripts => {
                let () = self.server.ask(&["SCRIPT", "FLUSH"]);
                What::Harmless
            }
            Break::ResetConnections => {
                self.proxies.iter().for_each(ChaosProxy::reset);
                What::StoreAway
            }
            Break::DelayStore => {
                let delay = time / 8;
                self.proxies.iter().for_each(|proxy| proxy.delay(delay));
                wait(time);
                self.proxies.iter().for_each(ChaosProxy::pass);
                What::StoreAway
            }
        }
    }

    fn revive(&mut self, node: usize, crowd: &Crowd) {
        let fresh = self::node(&self.proxies[node], &self.document, self.lease);
        let old = std::mem::replace(&mut self.nodes[node], fresh);
        self.past.push_str(&format!("--- node {node}, killed\n{}", old.stderr()));
        self.meet(crowd);
    }

    fn meet(&self, crowd: &Crowd) {
        crowd.meets(&self.nodes.iter().map(|node| node.data).collect::<Vec<_>>());
    }

    /// What all nodes said.
    pub(crate) fn said(&self) -> String {
        let mut said = self.past.clone();
        for (number, node) in self.nodes.iter().enumerate() {
            said.push_str(&format!("--- node {number}\n{}", node.stderr()));
        }
        said
    }
}

/// A node that reaches Redis through this proxy alone.
fn node(proxy: &ChaosProxy, document: &str, lease: Duration) -> Process {
    let url = format!("redis://{}", proxy.addr());
    let lease = format!("{}ms", lease.as_millis());
    let env = [
        ("FLOTILLA_REDIS_URL", url.as_str()),
        ("FLOTILLA_REDIS_DEADLINE", "500ms"),
        ("FLOTILLA_LEASE_TTL", &lease),
        ("FLOTILLA_NODE_TTL", "1s"),
        ("FLOTILLA_TICK", "100ms"),
        ("FLOTILLA_WORKERS", "1"),
    ];
    Process::start(document, &env)
}

/// Lets the fleet work.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for but time: chaos needs it")]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}
