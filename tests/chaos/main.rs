//! Chaos: a fleet of real nodes on a real Redis, everything that can break is broken, and a judge
//! that was told nothing but what is seen from outside.
//!
//! `make chaos SEED=n MINUTES=m` runs it for m minutes; without `MINUTES` it is the short form that
//! `cargo test` runs. The seed makes the demand and the faults again, not the moments at which
//! threads run: a violation may take a few runs to come back. All that was seen is written to
//! `target/tmp/chaos-<seed>.txt` when there is one.

mod demand;
mod faults;
#[path = "judge/judge.rs"]
#[expect(dead_code, reason = "tests/it uses it too, and other parts of it")]
mod judge;
#[path = "../it/support/shared.rs"]
#[expect(dead_code, unused_imports, reason = "tests/it uses it too, and other parts of it")]
mod support;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::demand::{KEYS, document, limits};
use self::faults::World;
use self::judge::check::check;
use self::judge::dice::Dice;
use self::judge::history::{Algorithm, Ending, History, Patience};
use self::support::crowd::Crowd;
use self::support::recorded;

/// How long a lease lives: it is waited for at the end, and now and then outlived by a fault.
const LEASE: Duration = Duration::from_secs(2);
/// How long the fleet may take to come to rest, the lease not counted.
const REST: Duration = Duration::from_secs(20);

/// How long everything takes.
struct Plan {
    seed: u64,
    load: Duration,
    /// Calm between faults, at most.
    calm: Duration,
    /// Whether the figures are told where nothing is wrong.
    tells: bool,
}

impl Plan {
    #[expect(clippy::disallowed_methods, reason = "how long, and what again, is said from outside")]
    fn read() -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let seed = given("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
        let Some(minutes) = given("MINUTES") else {
            let (load, calm) = (Duration::from_secs(18), Duration::from_secs(3));
            return Self { seed, load, calm, tells: false };
        };
        let minutes: f64 = minutes.parse().expect("MINUTES is a number");
        let load = Duration::from_secs_f64(minutes.clamp(0.2, 24.0 * 60.0) * 60.0);
        Self { seed, load, calm: Duration::from_secs(15), tells: true }
    }
}

#[test]
fn whatever_breaks_the_fleet_keeps_its_promises() {
    let plan = Plan::read();
    let mut dice = Dice::new(plan.seed);
    let crowd = Arc::new(Crowd::new());
    let world = World::start(&crowd, &document(&crowd), LEASE);
    let over = Arc::new(AtomicBool::new(false));

    let breaker = std::thread::spawn({
        let (crowd, dice, load, calm) = (Arc::clone(&crowd), dice.split(), plan.load, plan.calm);
        let over = Arc::clone(&over);
        move || {
            let mut world = world;
            world.breaks(&crowd, dice, load, calm);
            over.store(true, Ordering::SeqCst);
            world
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let stalls = runtime.block_on(demand::crowds(&crowd, &mut dice, plan.load, &over));
    let mut world = breaker.join().expect("who breaks things does not break");
    world.faults.extend(stalls);
    world.faults.sort_by_key(|fault| fault.from);

    let rested = rest(&world);
    let from = crowd.now();
    let limits = limits();
    let permits = recorded::permits(&world.server);
    let of_permits = limits.iter().filter(|limit| limit.algorithm == Algorithm::Permits);
    let standings = of_permits.map(|limit| (limit.name.clone(), permits)).collect();
    let rows = Some(recorded::usage(&world.server));
    let lease = u64::try_from(LEASE.as_micros()).expect("a short time");
    let history = History {
        seed: plan.seed,
        limits,
        faults: world.faults.clone(),
        ending: Some(Ending { from, until: crowd.now(), standings, rows }),
        patience: Patience { lease, ..Patience::default() },
        ..crowd.history()
    };
    let report = check(&history);
    let wrong = !report.violations.is_empty() || rested.is_err();
    let mut told = format!(
        "seed {}: {} requests, {} attempts, {} faults\n{report}",
        history.seed,
        history.asks.len(),
        history.attempts.len(),
        history.faults.len()
    );
    for fault in &history.faults {
        told.push_str(&format!("{fault}\n"));
    }
    if wrong {
        let path = write(&history, &world);
        told.push_str(&format!("all that was seen is in {}\n", path.display()));
    }
    if plan.tells || wrong {
        std::io::stdout().write_all(told.as_bytes()).expect("standard output takes it");
    }
    report.assert_good(&history);
    assert_eq!(rested, Ok(()));
    let served = |key: &str| {
        let asks = history.asks.iter().filter(|ask| ask.who == key);
        asks.filter(|ask| history.attempts.iter().any(|it| it.ask == ask.id)).count()
    };
    for key in KEYS {
        assert!(served(key) > 20, "{key} was served {} times\n{told}", served(key));
    }
}

/// Waits until nothing is held and everything is recorded; what is left where that does not come.
fn rest(world: &World) -> Result<(), String> {
    let begun = Instant::now();
    let mut last = None;
    let mut since = Instant::now();
    loop {
        let (permits, members) =
            (recorded::permits(&world.server), recorded::members(&world.server));
        let usage = Some(recorded::usage(&world.server));
        if usage != last || permits + members > 0 {
            (last, since) = (usage, Instant::now());
        }
        if since.elapsed() > Duration::from_secs(2) {
            return Ok(());
        }
        if begun.elapsed() > LEASE + REST {
            return Err(format!("{permits} permits and {members} members are left"));
        }
        faults::wait(Duration::from_millis(100));
    }
}

/// Writes down everything that was seen, and what the nodes said.
fn write(history: &History, world: &World) -> PathBuf {
    let name = format!("chaos-{}.txt", history.seed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut lines: Vec<(u64, String)> = Vec::new();
    lines.extend(history.faults.iter().map(|it| (it.from, it.to_string())));
    lines.extend(history.asks.iter().map(|it| (it.sent, it.to_string())));
    lines.extend(history.attempts.iter().map(|it| (it.at, it.to_string())));
    lines.sort();
    let mut text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
    text.push_str(&format!("{:#?}\n{}", history.ending, world.said()));
    std::fs::write(&path, text).expect("the history is written");
    path
}
