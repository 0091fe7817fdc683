//! Nodes as members of their fleet: they come, are counted, leave, and are swept after when they
//! are lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla::fleet::member::{self, Leave};
use flotilla::policy::limit::{Admit, Bill, Counts, Row};
use flotilla::store::description::Description;
use flotilla::store::membership::Membership;
use flotilla::store::redis::{Redis, Shape, Tick};
use flotilla::store::schema::MIGRATIONS;
use flotilla::telemetry::FleetMetrics;
use tokio::time::sleep;

use crate::store::world::{admit, config, local, shape, window};
use crate::support::client::{Client, Response, ask, ask_chat, chat, get, post};
use crate::support::node::{Node, metric};
use crate::support::process::Process;
use crate::support::redis::{Cluster, Kind, Server, prefix, shared};
use crate::support::wall::{Gate, Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const LEASE: Duration = Duration::from_secs(2);
/// More than anything here takes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// What the nodes of one test share.
struct Rig<'a> {
    server: &'a Server,
    prefix: String,
    document: String,
}

impl<'a> Rig<'a> {
    fn new(server: &'a Server, wall: &Wall) -> Self {
        let document = format!(
            "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v }} }}
pools: {{ p: {{ tiers: [[t]] }} }}
limits:
- {{ name: slots, scope: tenant, metric: concurrency, limit: 1 }}
- {{ name: tokens, scope: tenant, metric: tokens, limit: 1000000, window: 1h }}
",
            wall.base_url("/v1")
        );
        Self { server, prefix: prefix(), document }
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("FLOTILLA_REDIS_URL", self.server.url()),
            ("FLOTILLA_REDIS_PREFIX", self.prefix.clone()),
            ("FLOTILLA_REDIS_DEADLINE", "500ms".to_owned()),
            ("FLOTILLA_LEASE_TTL", "2s".to_owned()),
            ("FLOTILLA_TICK", "50ms".to_owned()),
            ("FLOTILLA_NODE_TTL", "500ms".to_owned()),
            ("FLOTILLA_WORKERS", "1".to_owned()),
        ]
    }

    fn process(&self) -> Process {
        let env = self.env();
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(&self.document, &env)
    }

    fn node(&self) -> Node {
        self.node_with(&[])
    }

    fn node_with(&self, more: &[(&str, &str)]) -> Node {
        let env = self.env();
        let env = env.iter().map(|(name, value)| (*name, value.as_str()));
        let env: Vec<_> = env.chain(more.iter().copied()).collect();
        Node::with(&self.document, &env)
    }

    fn key(&self, noun: &str) -> String {
        format!("{}:v1:{{fleet}}:{noun}", self.prefix)
    }

    /// How many nodes are listed, lost ones too.
    fn listed(&self) -> usize {
        self.server.ask(&["ZCARD", &self.key("nodes")])
    }

    /// The tags that nodes say they use, of all of them.
    fn tags(&self) -> Vec<String> {
        let keys = self.server.keys(&self.prefix);
        let lists = keys.iter().filter(|key| key.starts_with(&self.key("tags:")));
        lists.flat_map(|key| self.server.ask::<Vec<String>>(&["SMEMBERS", key])).collect()
    }

    /// All that was recorded in this hour and the one before.
    async fn usage(&self, redis: &Redis) -> Counts {
        let hour = self.server.now_ms() / 3_600_000;
        let mut sum = Counts::default();
        for hour in [hour - 1, hour] {
            let rows = redis.usage("t:default", hour).await.expect("redis answers");
            rows.iter().for_each(|(_, counts)| sum.add(counts));
        }
        sum
    }

    fn redis(&self) -> Redis {
        Redis::open(&config(&self.server.url()), &shape(&self.prefix)).expect("a good URL")
    }
}

/// Asks until the answer is as wanted.
async fn until<T, F: Future<Output = T>>(
    mut look: impl FnMut() -> F,
    good: impl Fn(&T) -> bool,
) -> T
where
    T: std::fmt::Debug,
{
    let begun = Instant::now();
    loop {
        let seen = look().await;
        if good(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < LIMIT, "still {seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn gated(gate: &Gate) -> Wall {
    let gate = gate.clone();
    Wall::start(move |attempt| match attempt.number {
        0 => Script::new().wait(&gate).then(Script::json(200, ANSWER)),
        _ => Script::json(200, ANSWER),
    })
}

async fn ready(admin: SocketAddr) -> u16 {
    ask(admin, &get("/readyz", &[])).await.status
}

fn is_ok(response: &Response) -> bool {
    response.status == 200
}

// T4, T7b
#[test]
fn a_node_that_is_killed_gives_its_permit_back_and_its_estimate_is_recorded_once() {
    local(async {
        let (gate, server) = (Gate::new(), shared(Kind::Redis7));
        let wall = gated(&gate);
        let rig = Rig::new(server, &wall);
        let (mut doomed, other) = (rig.process(), rig.process());
        let mut client = Client::connect(doomed.data).await;
        client.send(&post("/v1/chat/completions", &[], &chat("p", false))).await;
        wall.attempt(0).await;
        let refused = ask_chat(other.data, "p", false).await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "concurrency_limited"));
        doomed.signal("KILL");
        let killed = Instant::now();
        doomed.exit().await;
        until(|| ask_chat(other.data, "p", false), is_ok).await;
        assert!(killed.elapsed() < LEASE + Duration::from_secs(1), "{:?}", killed.elapsed());

        let redis = rig.redis();
        let used = until(|| rig.usage(&redis), |used| used.attempts == 2).await;
        assert_eq!((used.node_lost, used.requests, used.estimated), (1, 2, 1));
        until(async || rig.listed(), |listed| *listed == 1).await;
        let swept = metric(other.admin, "flotilla_swept_reservations_total");
        assert!((swept - 1.0).abs() < 0.1, "{swept}");
        assert_eq!(rig.usage(&redis).await, used, "once");
        assert!(metric(other.admin, "flotilla_fleet_nodes") < 1.5);
    });
}

// T7b: the tag is one that only the lost node used, so it is found by the lost node's list.
#[test]
fn the_truth_of_a_node_that_was_only_stopped_takes_the_place_of_its_estimate() {
    local(async {
        let (gate, server) = (Gate::new(), shared(Kind::Redis7));
        let wall = gated(&gate);
        let rig = Rig::new(server, &wall);
        let (stopped, other) = (rig.process(), rig.process());
        let mut client = Client::connect(stopped.data).await;
        client.send(&post("/v1/chat/completions", &[], &chat("p", false))).await;
        wall.attempt(0).await;
        until(async || rig.tags(), |tags| *tags == ["t:default"]).await;
        stopped.signal("STOP");
        let redis = rig.redis();
        let estimate = until(|| rig.usage(&redis), |used| used.node_lost == 1).await;
        assert_eq!((estimate.attempts, estimate.estimated), (1, 1));
        until(async || rig.listed(), |listed| *listed == 1).await;
        assert!(metric(other.admin, "flotilla_forgotten_nodes_total") > 0.5);

        stopped.signal("CONT");
        gate.open();
        assert_eq!(client.response().await.status, 200);
        let truth = until(|| rig.usage(&redis), |used| used.node_lost == 0).await;
        let expected = Counts {
            requests: 1,
            attempts: 1,
            input_tokens: 10,
            output_tokens: 5,
            ..Counts::default()
        };
        assert_eq!(truth, expected);
        // It is one of the fleet again, with the tags that it uses.
        until(async || rig.listed(), |listed| *listed == 2).await;
        until(async || rig.tags(), |tags| *tags == ["t:default"]).await;
    });
}

#[tokio::test]
async fn a_tag_is_listed_with_its_first_admission_and_leaves_when_it_is_used_no_more() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let rig = Rig::new(shared(Kind::Redis7), &wall);
    // No tick lists it: the next one is a minute away.
    let slow = [("FLOTILLA_TICK", "1m"), ("FLOTILLA_NODE_TTL", "2m"), ("FLOTILLA_LEASE_TTL", "4m")];
    let node = rig.node_with(&slow);
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    assert_eq!(rig.tags(), ["t:default"]);
    drop(node);

    let rig = Rig::new(shared(Kind::Redis7), &wall);
    let node = rig.node();
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    assert_eq!(rig.tags(), ["t:default"]);
    until(async || rig.tags(), |tags| tags.is_empty()).await;
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    assert_eq!(rig.tags(), ["t:default"]);
}

// T4: three sweep at once; each reservation is swept by one of them.
#[test]
fn what_a_lost_node_left_under_many_tags_is_swept_once() {
    const TAGS: usize = 50;
    const MEMBERS: usize = 6;
    local(async {
        let (server, prefix) = (shared(Kind::Redis7), prefix());
        let lease_ttl = Duration::from_millis(500);
        let shape = Shape { lease_ttl, ..shape(&prefix) };
        let connection = config(&server.url());
        let open = || Redis::open(&connection, &shape).expect("a good URL");
        let (lost, node_ttl) = (open(), Duration::from_millis(300));
        let tags: Vec<Arc<str>> = (0..TAGS).map(|tag| format!("t:{tag}").into()).collect();
        let begun = tags.clone();
        let tick = Tick { incarnation: 7, node_ttl_ms: 300, begun, ..Tick::default() };
        lost.tick(&tick).await.expect("redis answers");
        for tag in &tags {
            for _ in 0..MEMBERS {
                let row = Row { key: "k".into(), ..Row::default() };
                let estimate = Counts { requests: 1, input_tokens: 3, ..Counts::default() };
                let bill = Some(Bill { row, estimate });
                let admit = Admit { tag: tag.clone(), bill, ..admit(&[(window(1_000), 5)]) };
                lost.admit(&admit).await.expect("redis answers");
            }
        }
        // Its last word: leases end at most one lease after it.
        lost.tick(&Tick { begun: Vec::new(), ..tick }).await.expect("redis answers");
        let metrics = FleetMetrics::default();
        let leave = Leave::default();
        let member = |incarnation| {
            let membership = Arc::new(Membership::new(incarnation, node_ttl));
            let config = member::Config {
                connection: connection.clone(),
                prefix: prefix.clone(),
                migrations: MIGRATIONS,
                tick: Duration::from_millis(20),
                lease_ttl,
            };
            let redis = open().of_node(Arc::clone(&membership));
            let (metrics, leave) = (metrics.clone(), leave.clone());
            tokio::task::spawn_local(async move {
                let describe = Description::default;
                member::run(&config, &redis, &membership, &metrics, describe, drop, &leave).await;
            })
        };
        let members: Vec<_> = (1..=3).map(member).collect();
        let nodes = format!("{prefix}:v1:{{fleet}}:nodes");
        let forgotten =
            || server.ask::<Option<String>>(&["ZSCORE", &nodes, &format!("{:016x}", 7)]);
        until(async || forgotten(), Option::is_none).await;
        leave.goodbye.cancel();
        for member in members {
            member.await.expect("no panic");
        }
        assert_eq!(server.ask::<usize>(&["ZCARD", &nodes]), 0, "all said goodbye");
        let hour = server.now_ms() / 3_600_000;
        for tag in &tags {
            let mut sum = Counts::default();
            for hour in [hour - 1, hour] {
                let rows = lost.usage(tag, hour).await.expect("redis answers");
                rows.iter().for_each(|(_, counts)| sum.add(counts));
            }
            let members = i64::try_from(MEMBERS).expect("few");
            assert_eq!((sum.node_lost, sum.input_tokens), (members, 3 * members), "{tag}");
            let asked = [(Arc::from("tenant"), window(1_000))];
            let standing = lost.standing(tag, &asked).await.expect("redis answers");
            assert_eq!(standing[0].used, 5 * 6, "it stays charged");
            assert_eq!(lost.lapsed(tag, 10).await.expect("redis answers").len(), 0);
        }
    });
}

#[tokio::test]
async fn nodes_count_each_other_and_one_that_drains_is_gone_at_once() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let rig = Rig::new(shared(Kind::Redis7), &wall);
    let nodes = [rig.node(), rig.node(), rig.node()];
    for node in &nodes {
        until(async || node.metric("flotilla_fleet_nodes"), |nodes| *nodes > 2.5).await;
    }
    let [mut leaving, first, second] = nodes;
    assert_eq!(ask_chat(leaving.data, "p", false).await.status, 200);
    until(async || rig.tags(), |tags| *tags == ["t:default"]).await;
    leaving.drain();
    leaving.join();
    assert_eq!((rig.listed(), rig.tags().len()), (2, 0));
    for node in [&first, &second] {
        until(async || node.metric("flotilla_fleet_nodes"), |nodes| *nodes < 2.5).await;
        assert_eq!(node.metric("flotilla_forgotten_nodes_total"), 0.0);
    }
    let description: Vec<String> = rig.server.ask(&["HVALS", &rig.key("descriptions")]);
    let description: serde_json::Value =
        serde_json::from_str(&description[0]).expect("one object each");
    assert_eq!((&description["state"], &description["schema"]), (&"serving".into(), &1.into()));
}

#[tokio::test]
async fn nodes_on_a_cluster_are_one_fleet() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let cluster = Cluster::start().await;
    let (rig, url) = (Rig::new(&cluster.0[0], &wall), cluster.url());
    let settings = [("FLOTILLA_REDIS_URL", url.as_str()), ("FLOTILLA_REDIS_DEADLINE", "500ms")];
    let (lost, node) = (rig.node_with(&settings), rig.node_with(&settings));
    for member in [&lost, &node] {
        until(async || member.metric("flotilla_fleet_nodes"), |nodes| *nodes > 1.5).await;
        assert_eq!(member.metric("flotilla_schema_version"), 1.0);
    }
    assert_eq!(ask_chat(lost.data, "p", false).await.status, 200);
    // It ends without a word.
    drop(lost);
    until(async || node.metric("flotilla_forgotten_nodes_total"), |nodes| *nodes > 0.5).await;
    assert_eq!(node.metric("flotilla_fleet_nodes"), 1.0);
}

#[tokio::test]
async fn a_redis_that_forgets_everything_is_told_everything_again() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let server = Server::start();
    let rig = Rig::new(&server, &wall);
    let node = rig.node();
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    until(async || rig.tags(), |tags| *tags == ["t:default"]).await;
    // The alarm is about a number that does not grow, so it must have grown.
    until(async || server.ask::<u64>(&["GET", &rig.key("ticks")]), |ticks| *ticks > 3).await;
    let () = server.ask(&["FLUSHALL"]);
    until(async || node.metric("flotilla_redis_lost_writes_total"), |lost| *lost > 0.5).await;
    let version = || server.ask::<Option<u32>>(&["HGET", &rig.key("schema"), "version"]);
    until(async || version(), |version| *version == Some(1)).await;
    until(async || rig.tags(), |tags| *tags == ["t:default"]).await;
    assert_eq!(rig.listed(), 1);
}

// T8, T29
#[tokio::test]
async fn a_node_starts_without_its_redis_and_joins_when_it_is_there() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let mut server = Server::start();
    let mut rig = Rig::new(&server, &wall);
    // Of one permit a node of two has no share while Redis is away.
    rig.document = rig.document.replace("concurrency, limit: 1", "concurrency, limit: 4");
    let (document, prefix) = (rig.document.clone(), rig.prefix.clone());
    let env = rig.env();
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.pause();
    let begun = Instant::now();
    let silent = Process::start(&document, &env);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(ready(silent.admin).await, 200);
    server.kill();
    let begun = Instant::now();
    let refused = Process::start(&document, &env);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(ready(refused.admin).await, 200);
    assert_eq!(ask_chat(refused.data, "p", false).await.status, 200);
    server.restart();
    let rig = Rig { server: &server, prefix, document };
    until(async || rig.listed(), |listed| *listed == 2).await;
    for node in [&silent, &refused] {
        until(async || metric(node.admin, "flotilla_fleet_nodes"), |nodes| *nodes > 1.5).await;
        assert_eq!(ready(node.admin).await, 200);
    }
    // And is not asked by anybody when it is away again.
    server.pause();
    assert_eq!(ask_chat(silent.data, "p", false).await.status, 200);
    assert_eq!(ready(silent.admin).await, 200);
    server.resume();
}
