//! Exact limits: of requests, tokens, concurrency and money, over many nodes at once.

use std::time::Duration;

use futures_util::future::join_all;

use super::rig::{LEASE, Rig, SHORT_LEASES, of, window};
use crate::judge::history::{Algorithm, End, Metric};
use crate::support::crowd::{Crowd, Wish};
use crate::support::eventually::eventually;
use crate::support::process::spawn_fleet;
use crate::support::redis::Server;
use crate::support::wall::{DEADLINE, Script, Wall};

/// Four tenants with one limit each, of about a hundred requests.
const FOUR: &str = r#"tenants:
  a: {}
  b: {}
  c: {}
  d: { budget: { limit: "0.181 USD", period: month } }
keys:
  - { name: a, tenant: a, key: "sk-a" }
  - { name: b, tenant: b, key: "sk-b" }
  - { name: c, tenant: c, key: "sk-c" }
  - { name: d, tenant: d, key: "sk-d" }
limits:
  - { name: a-rpm, scope: { tenant: a }, metric: requests, limit: 100, window: 1m, degraded: fail_closed }
  - { name: b-tpm, scope: { tenant: b }, metric: tokens, limit: 91000, window: 1m, degraded: fail_closed }
  - { name: c-slots, scope: { tenant: c }, metric: concurrency, limit: 100, degraded: fail_closed }
"#;

// T1
#[tokio::test]
async fn eight_nodes_admit_what_one_would() {
    let rig = Rig::start(4, 4, FOUR);
    let crowd = &rig.crowd;
    let asks = (0..5000).map(|number| {
        let key = ["a", "b", "c", "d"][number % 4];
        let hold = Duration::from_millis(if key == "c" { 1500 } else { 0 });
        let wish = Wish::of(&format!("sk-{key}")).tokens(900, 900).held(hold);
        crowd.ask(crowd.any(), Wish { row: format!("{key} p"), ..wish })
    });
    join_all(asks).await;

    let limits = vec![
        window("a-rpm", &["sk-a"], Metric::Requests, 100, 60.0),
        window("b-tpm", &["sk-b"], Metric::Tokens, 91_000, 60.0),
        of("c-slots", &["sk-c"], Metric::Concurrency, Algorithm::Permits, 100),
        of("budget", &["sk-d"], Metric::Cost, Algorithm::Budget, 181_000),
    ];
    let report = rig.judged(limits).await;

    let history = crowd.history();
    let served = |key: &str| {
        let asks = history.asks.iter().filter(|ask| ask.who == format!("sk-{key}"));
        asks.filter(|ask| matches!(ask.end, End::Answered { status: 200, .. })).count()
    };
    // A request is estimated at no more than a token for each byte of its body above its 900.
    let [requests, tokens, slots, budget] = ["a", "b", "c", "d"].map(served);
    assert_eq!(requests, 100, "{report}");
    assert!((85..=100).contains(&tokens), "{tokens} of about 100\n{report}");
    assert!((90..=100).contains(&budget), "{budget} of about 100\n{report}");
    let most = report.measured[2].fullest;
    assert!(slots >= 100 && most > 0.9, "{slots} held at most {most} of all permits\n{report}");
}

const TEN: &str = r#"tenants: { a: {} }
keys: [{ name: a, tenant: a, key: "sk-a" }]
limits:
  - { name: tpm, scope: { tenant: a }, metric: tokens, limit: 9100, window: 1m, degraded: fail_closed }
  - { name: slots, scope: key, metric: concurrency, limit: 1000, degraded: fail_closed }
"#;

// T2
#[tokio::test]
async fn tokens_are_reserved_before_they_are_used_in_streams_too() {
    for stream in [false, true] {
        let rig = Rig::start(2, 2, TEN);
        let crowd = &rig.crowd;
        let asks = (0..200).map(|_| {
            let wish = Wish::of("sk-a").tokens(900, 900).held(Duration::from_millis(300));
            crowd.ask(crowd.any(), Wish { stream, row: "a p".into(), ..wish })
        });
        join_all(asks).await;
        // 10 tokens in, 900 out: ten fit; as long as they are estimates, seven at least.
        let served = crowd.wall.count();
        assert!((7..=10).contains(&served), "stream {stream}: {served} were served");
        let tpm = window("tpm", &[], Metric::Tokens, 9_100, 60.0);
        rig.judged(vec![tpm]).await;
    }
}

const BUCKET: &str = r#"tenants: { a: {} }
keys: [{ name: a, tenant: a, key: "sk-a" }]
limits: [{ name: tpm, scope: { tenant: a }, metric: output_tokens, algorithm: token_bucket, limit: 1000, burst: 1000,
  window: 1s, degraded: fail_closed }]
"#;

// T2
#[tokio::test]
async fn what_flowed_back_into_a_bucket_is_not_given_back_again() {
    let rig = Rig::start(2, 0, BUCKET);
    let crowd = &rig.crowd;
    let ask = |node, output, most, hold| {
        let wish = Wish::of("sk-a").tokens(output, most).held(Duration::from_millis(hold));
        crowd.ask(node, Wish { row: "a p".into(), ..wish })
    };
    // Reserved in full, used hardly, and for so long that all of it flowed back meanwhile.
    let (_, ()) = tokio::join!(ask(0, 1, 1000, 1500), async {
        eventually(DEADLINE, || crowd.wall.count() == 1).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        let answer = ask(1, 1000, 1000, 0).await.expect("an answer");
        assert_eq!(answer.head.status, 200);
    });
    let burst = Algorithm::Bucket { window: 1_000_000, burst: 1000 };
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        ask(0, 300, 300, 0).await;
    }
    let report = rig.judged(vec![of("tpm", &[], Metric::OutputTokens, burst, 1000)]).await;
    assert!(report.measured[0].refusals > 0, "{report}");
}

// T2
#[tokio::test]
async fn every_route_reserves_and_settles_to_the_token() {
    for (path, stream) in [("/completions", false), ("/completions", true), ("/embeddings", false)]
    {
        let rig = Rig::start(2, 0, TEN);
        let crowd = &rig.crowd;
        // A few at a time, so that what they turn out to be is known to those that come after.
        for _ in 0..12 {
            let asks = (0..12).map(|_| {
                let wish = Wish::of("sk-a").tokens(900, 900).held(Duration::from_millis(20));
                let wish = Wish { path, stream, input: 80, row: "a p".into(), ..wish };
                crowd.ask(crowd.any(), wish)
            });
            join_all(asks).await;
            rig.rests().await;
            if crowd
                .history()
                .asks
                .iter()
                .any(|ask| matches!(ask.end, End::Answered { status: 429, .. }))
            {
                break;
            }
        }
        let report = rig.judged(vec![window("tpm", &[], Metric::Tokens, 9_100, 60.0)]).await;
        assert!(report.measured[0].refusals > 0, "{path}: {report}");
        // Those in flight may come to more than was reserved for them, by their prompts.
        let used =
            rig.recorded().values().map(|row| row.usage.input + row.usage.output).sum::<u64>();
        assert!((7_800..=9_100 + 12 * 80).contains(&used), "{path}: {used} tokens");
    }
}

// T2
#[tokio::test]
async fn a_refused_request_changes_no_counter() {
    let rig = Rig::start(2, 0, TEN);
    let crowd = &rig.crowd;
    for _ in 0..9 {
        crowd.ask(crowd.any(), Wish::of("sk-a").tokens(900, 900)).await;
    }
    rig.rests().await;
    let state = || {
        let mut keys = rig.keys("scope");
        keys.extend(rig.keys("usage"));
        keys.sort();
        let dump = |key: String| {
            let bytes: Vec<u8> = rig.server.ask(&["DUMP", &key]);
            (key, bytes)
        };
        keys.into_iter().map(dump).collect::<Vec<_>>()
    };
    let before = state();
    assert!(!before.is_empty(), "something was counted");
    for _ in 0..20 {
        let answer = crowd.ask(crowd.any(), Wish::of("sk-a").tokens(2000, 2000)).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.head.status, answer.code()), (429, "tokens_limited".into()));
    }
    assert_eq!((rig.permits(), rig.members()), (0, 0));
    assert!(state() == before, "a refusal is written nowhere");
}

// T2
#[tokio::test]
async fn a_node_that_dies_in_a_stream_leaves_its_estimate_and_nothing_else() {
    let mut rig = Rig::start_with(0, 2, TEN, &SHORT_LEASES, Server::start());
    let crowd = &rig.crowd;
    let wish = Wish::of("sk-a").tokens(50, 900).streamed().held(Duration::from_secs(20));
    let node = &rig.fleet.processes[0];
    let (_, ()) = tokio::join!(crowd.ask(0, Wish { row: "a p".into(), ..wish }), async {
        eventually(DEADLINE, || crowd.wall.count() == 1).await;
        eventually(DEADLINE, || rig.permits() == 1 && rig.members() == 1).await;
        node.signal("KILL");
    });
    let killed = std::time::Instant::now();
    eventually(LEASE + Duration::from_secs(2), || rig.permits() == 0).await;
    assert!(killed.elapsed() < LEASE + Duration::from_millis(1500), "within one lease");
    rig.rests().await;
    let rows = rig.recorded();
    let row = rows.get("a p").copied().unwrap_or_default();
    assert_eq!((row.attempts, row.node_lost), (1, 1), "{rows:?}");
    assert!(row.usage.output >= 900, "its estimate stands: {rows:?}");
    drop(rig.fleet.processes.remove(0));
    // The estimate is charged: of 9,100 tokens, eight requests more and no ninth.
    let crowd = &rig.crowd;
    let mut served = 0;
    for _ in 0..12 {
        let answer = crowd.ask(1, Wish::of("sk-a").tokens(900, 900)).await.expect("an answer");
        served += u32::from(answer.head.status == 200);
    }
    assert!((7..=9).contains(&served), "{served} were served");
}

const BUDGET: &str = r#"tenants: { a: { budget: { limit: "0.0181 USD", period: month } } }
keys: [{ name: a, tenant: a, key: "sk-a" }]
limits: []
"#;

// T5
#[tokio::test]
async fn a_budget_is_never_overdrawn_and_never_left_lying() {
    let rig = Rig::start(2, 2, BUDGET);
    let crowd = &rig.crowd;
    let asks = (0..500).map(|number| {
        let wish = Wish::of("sk-a").tokens(900, 900).held(Duration::from_millis(200));
        crowd.ask(crowd.any(), Wish { stream: number % 2 == 0, row: "a p".into(), ..wish })
    });
    join_all(asks).await;
    let served = crowd.wall.count();
    assert!((8..=10).contains(&served), "{served} calls of a budget for 10");
    let report = rig.judged(vec![of("budget", &[], Metric::Cost, Algorithm::Budget, 18_100)]).await;
    assert!(report.measured[0].refusals >= 490, "{report}");
    // What small calls left over is there for small ones.
    let mut small = 0;
    while let Some(answer) = crowd.ask(crowd.any(), Wish::of("sk-a").tokens(1, 1)).await {
        if answer.head.status != 200 {
            assert_eq!(answer.code(), "budget_exceeded");
            break;
        }
        small += 1;
        assert!(small < 300, "a budget ends");
    }
    rig.rests().await;
    let spent = rig.recorded().values().map(|row| row.usage.cost).sum::<u64>();
    assert!((17_700..=18_100).contains(&spent), "{spent} of 18100 micro-USD");
}

const FREE_AND_PAID: &str = r#"tenants: { a: { budget: { limit: "0.001 USD", period: month } } }
keys: [{ name: a, tenant: a, key: "sk-a" }]
"#;

// T6
#[tokio::test]
async fn a_budget_that_is_spent_is_no_way_round_by_fallback() {
    let crowd = Crowd::new();
    let paid = Wall::always(Script::json(200, "{}"));
    let server = Server::start();
    let document = format!(
        "providers:
  free: {{ protocol: openai, base_url: \"{}\", api_key: sk-wall }}
  paid: {{ protocol: openai, base_url: \"{}\", api_key: sk-wall }}
targets:
  free: {{ provider: free }}
  paid: {{ provider: paid, price: {{ input: 1, output: 2 }} }}
pools: {{ p: {{ tiers: [[free], [paid]], retry: {{ attempts: 3 }} }} }}
{FREE_AND_PAID}",
        crowd.wall.base_url(),
        paid.base_url("/v1"),
    );
    let url = server.url();
    let env = [("FLOTILLA_REDIS_URL", url.as_str()), ("FLOTILLA_REDIS_DEADLINE", "2s")];
    let fleet = spawn_fleet(2, 0, &document, &env);
    crowd.meets(&fleet.addresses());
    for number in 0..10 {
        let wish = Wish::of("sk-a").tokens(900, 900);
        let wish = Wish { status: 503, stream: number % 2 == 0, ..wish };
        let answer = crowd.ask(crowd.any(), wish).await.expect("an answer");
        assert!(answer.head.status >= 400, "status {}", answer.head.status);
    }
    assert!(crowd.wall.count() >= 10, "the free target is tried each time");
    assert_eq!(paid.count(), 0, "the paid one never is");
    let answer = crowd.ask(0, Wish::of("sk-a")).await.expect("an answer");
    assert_eq!(answer.head.status, 200, "what is free goes on");
}
