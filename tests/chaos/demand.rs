//! Who asks for what: more than every limit allows, from clients that wait, stream, or leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::faults::NODES;
use crate::judge::dice::Dice;
use crate::judge::history::{Algorithm, Fault, Limit, Metric, Micros, SECOND, What};
use crate::support::crowd::{Crowd, Wish};

/// Everyone who asks.
pub(crate) const KEYS: [&str; 6] =
    ["sk-requests", "sk-tokens", "sk-slots", "sk-bucket", "sk-budget", "sk-share"];
/// Clients of each key, and of the one whose permits are to run out.
const CLIENTS: (u64, u64) = (3, 7);

/// The document of the fleet.
pub(crate) fn document(crowd: &Crowd) -> String {
    let url = crowd.wall.base_url();
    let names = KEYS.map(|key| key.trim_start_matches("sk-"));
    let tenants = names.map(|name| match name {
        "budget" => "  budget: { budget: { limit: \"1 USD\", period: month } }\n".to_owned(),
        name => format!("  {name}: {{}}\n"),
    });
    let keys =
        names.map(|name| format!("  - {{ name: {name}, tenant: {name}, key: \"sk-{name}\" }}\n"));
    format!(
        "providers: {{ w: {{ protocol: openai, base_url: \"{url}\", api_key: sk-wall }} }}
targets: {{ t: {{ provider: w, price: {{ input: 1, output: 2 }} }} }}
pools: {{ p: {{ tiers: [[t]], retry: {{ attempts: 1 }} }} }}
routes: [{{ name: all, match: {{ model: \"m*\" }}, pool: p }}]
tenants:\n{}keys:\n{}limits:
  - {{ name: requests, scope: {{ tenant: requests }}, metric: requests, limit: 45, window: 3s, degraded: fail_closed }}
  - {{ name: tokens, scope: {{ tenant: tokens }}, metric: tokens, limit: 8000, window: 3s, degraded: fail_closed }}
  - {{ name: slots, scope: {{ tenant: slots }}, metric: concurrency, limit: 4, degraded: fail_closed }}
  - {{ name: bucket, scope: {{ tenant: bucket }}, metric: requests, algorithm: token_bucket, limit: 12, burst: 20,
      window: 1s, degraded: fail_closed }}
  - {{ name: share, scope: {{ tenant: share }}, metric: requests, limit: 48, window: 3s }}
",
        tenants.concat(),
        keys.concat()
    )
}

/// The same, as the judge sees it.
pub(crate) fn limits() -> Vec<Limit> {
    let limit = |name: &str, metric, algorithm, limit| Limit {
        name: name.to_owned(),
        covers: vec![format!("sk-{name}")],
        metric,
        algorithm,
        limit,
        bound: 0,
    };
    let window = Algorithm::Window { length: 3 * SECOND, slots: 60 };
    let bucket = Algorithm::Bucket { window: SECOND, burst: 20 };
    // Nodes that knew each other share one limit; one that starts while Redis is away knows of none
    // and has a whole one.
    let share = Limit { bound: 2 * 48, ..limit("share", Metric::Requests, window, 48) };
    vec![
        limit("requests", Metric::Requests, window, 45),
        limit("tokens", Metric::Tokens, window, 8000),
        limit("slots", Metric::Concurrency, Algorithm::Permits, 4),
        limit("bucket", Metric::Requests, bucket, 12),
        limit("budget", Metric::Cost, Algorithm::Budget, 1_000_000),
        share,
    ]
}

/// Asks until it is over; the times at which this machine stood still.
pub(crate) async fn crowds(
    crowd: &Crowd,
    dice: &mut Dice,
    load: Duration,
    over: &AtomicBool,
) -> Vec<Fault> {
    // An hour of rows has its bound.
    let page = (load / 100).max(Duration::from_secs(5));
    let page = u64::try_from(page.as_micros()).expect("a time");
    let mut clients = Vec::new();
    for key in KEYS {
        let many = if key == "sk-slots" { CLIENTS.1 } else { CLIENTS.0 };
        for _ in 0..many {
            clients.push(client(crowd, key, dice.split(), page, over));
        }
    }
    tokio::join!(join_all(clients), pulse(crowd, over)).1
}

/// Feels the pulse of the machine: where even this task is not run for long, nobody was, and no
/// deadline can be held.
async fn pulse(crowd: &Crowd, over: &AtomicBool) -> Vec<Fault> {
    const BEAT: Duration = Duration::from_millis(20);
    const STALL: Micros = SECOND / 4;
    let mut stalls = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let from = crowd.now();
        tokio::time::sleep(BEAT).await;
        let until = crowd.now();
        if until - from > STALL {
            stalls.push(Fault { what: What::StoreAway, from, until });
        }
    }
    stalls
}

async fn client(crowd: &Crowd, key: &str, mut dice: Dice, page: u64, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        let node = usize::try_from(dice.below(NODES as u64)).expect("a small number");
        let most = dice.within(50, 400);
        let wish = Wish::of(key).tokens(dice.within(1, most), most);
        let hold = Duration::from_millis(dice.below(if key == "sk-slots" { 400 } else { 60 }));
        let leaves = dice.once_in(10);
        // A name for each node and time, apart for those who leave: where nothing was broken and
        // nobody left, usage must be recorded to the token.
        let left = if leaves { "-left" } else { "" };
        let model = format!("m{node}{left}-{}", crowd.now() / page);
        let row = format!("{} {model}", key.trim_start_matches("sk-"));
        let mut wish = Wish { row, model, input: dice.within(5, 30), ..wish.held(hold) };
        wish.stream = dice.once_in(2);
        if leaves {
            wish = wish.left_after(Duration::from_millis(dice.below(80)));
        }
        crowd.ask(node, wish).await;
        tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
    }
}
