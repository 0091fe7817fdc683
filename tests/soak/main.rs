//! T26: a node under everything at once, for as long as one likes, and what it holds meanwhile.
//!
//! `make soak MINUTES=n` runs it for n minutes and judges the slope of its memory; without
//! `MINUTES` it is the short form that `cargo test` runs, which judges growth. The node is a
//! process of its own behind simulated providers that come and go with the document; clients are
//! threads with plain sockets. Everything is on loopback and ends by itself.

mod children;
mod load;
mod measure;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use children::World;
use load::Load;
use measure::{Samples, mib};

/// What the short form may grow from the first to the last quarter of its load, in bytes. Seconds
/// say nothing about a slope: this is some times the noise of a loaded allocator, and about what
/// losing half a kilobyte for each request costs at a thousand of them a second.
const SHORT_GROWTH: f64 = 4.0 * 1024.0 * 1024.0;
/// What the long form may grow in an hour, in bytes: beyond twice the error of the measured slope.
const LONG_SLOPE: f64 = 1024.0 * 1024.0;
/// From here on a slope means something.
const LONG: Duration = Duration::from_secs(600);
/// From here on the slope of the whole run is judged, before that the one of its flattest third.
const WHOLE: Duration = Duration::from_secs(3600);
/// How much more than before an idle node may hold afterwards.
const IDLE: f64 = 1.2;
/// How long the node may take to be idle.
const QUIET: Duration = Duration::from_secs(30);

/// What is to be nothing once the load is over.
const NOTHING: [&str; 7] = [
    "flotilla_requests_in_flight",
    "flotilla_connections",
    "flotilla_body_bytes",
    "flotilla_upstream_origins",
    "flotilla_upstream_requests_in_flight",
    "flotilla_upstream_connections_idle",
    "flotilla_log_lines_queued",
];

/// How long everything takes.
struct Plan {
    warm_up: Duration,
    load: Duration,
    reload_every: Duration,
    threads: usize,
    /// Whether the figures are told where no bound is broken.
    tells: bool,
}

impl Plan {
    fn read() -> Self {
        #[expect(clippy::disallowed_methods, reason = "how long is said from outside")]
        let minutes = std::env::var("MINUTES").ok().filter(|minutes| !minutes.is_empty());
        let Some(minutes) = minutes else {
            let (warm_up, load) = (Duration::from_secs(6), Duration::from_secs(10));
            let reload_every = Duration::from_secs(2);
            return Self { warm_up, load, reload_every, threads: 8, tells: false };
        };
        let minutes: f64 = minutes.parse().expect("MINUTES is a number");
        let load = Duration::from_secs_f64(minutes.clamp(0.1, 24.0 * 60.0) * 60.0);
        let warm_up = (load / 5).clamp(Duration::from_secs(6), Duration::from_secs(120));
        Self { warm_up, load, reload_every: Duration::from_secs(10), threads: 16, tells: true }
    }
}

// T26
#[test]
fn memory_stays_bounded_under_everything_at_once() {
    let plan = Plan::read();
    let mut world = World::start();
    let fresh = world.node.rss();
    let load = Arc::new(Load::new(world.node.data));

    let mut samples = Samples::default();
    run(&plan, plan.warm_up, &mut world, &load, &mut samples);
    let before = world.settle(QUIET, &NOTHING[..3]);
    let baseline = world.node.rss();
    let series = samples.series;

    let warm = load.asked.load(Ordering::Relaxed);
    let mut samples = Samples::default();
    run(&plan, plan.load, &mut world, &load, &mut samples);
    world.simulators.clear();
    let after = world.settle(QUIET, &NOTHING);
    let idle = world.node.rss();

    let asked = load.asked.load(Ordering::Relaxed) - warm;
    let mut report = format!(
        "{}\nfresh {}, idle after the warm-up {}, idle afterwards {} ({:.2} of before)\n{}\n\
         largest of each bounded thing, and what is left of it:\n",
        load.report(),
        mib(fresh),
        mib(baseline),
        mib(idle),
        idle / baseline,
        samples.report()
    );
    for (name, largest) in &samples.largest {
        let left = world.node.metric(name);
        report.push_str(&format!("  {name:<44} {largest:>10} {left:>10}\n"));
    }
    report.push_str("most series of each family, in the warm-up and in the load:\n");
    for (family, count) in &samples.series {
        let before = series.get(family).unwrap_or(&0);
        report.push_str(&format!("  {family:<44} {before:>10} {count:>10}\n"));
    }
    if plan.tells {
        std::io::stdout().write_all(report.as_bytes()).expect("standard output takes it");
    }

    let mut broken = Vec::new();
    broken.extend(before.err().map(|left| format!("after the warm-up: {left}")));
    broken.extend(after.err());
    if plan.load >= LONG {
        // Within an hour the steps of the allocator would pass for a slope.
        let whole = plan.load >= WHOLE;
        let (slope, error) = if whole { samples.slope() } else { samples.flattest_slope() };
        if slope - 2.0 * error > LONG_SLOPE {
            broken.push(format!("it grows by {} an hour (+- {})", mib(slope), mib(error)));
        }
    } else if samples.growth() > SHORT_GROWTH {
        broken.push(format!("it grew by {}", mib(samples.growth())));
    }
    if idle > baseline * IDLE {
        broken.push(format!("idle it holds {}, before it held {}", mib(idle), mib(baseline)));
    }
    // Outcomes that are rare may come late; names that clients make up would come by thousands.
    let (first, count) = (series.values().sum::<usize>(), samples.series.values().sum::<usize>());
    if count > first + first / 2 {
        broken.push(format!("there were {count} series, in the warm-up {first}"));
    }
    broken.extend(world.strangers().map(|line| format!("a name that is not configured: {line}")));
    broken.extend(load.broken());
    assert!(asked > 100 && load.served() > asked / 20, "the load is one:\n{report}");
    assert!(broken.is_empty(), "bounds are broken:\n{}\n{report}", broken.join("\n"));
}

/// Loads the node for so long, changing its document now and then.
fn run(plan: &Plan, time: Duration, world: &mut World, load: &Arc<Load>, samples: &mut Samples) {
    let clients = load.start(plan.threads);
    let begun = Instant::now();
    let mut next_reload = plan.reload_every;
    while begun.elapsed() < time {
        wait(Duration::from_millis(500));
        samples.take(begun.elapsed(), world);
        if begun.elapsed() >= next_reload {
            next_reload += plan.reload_every;
            world.change();
        }
    }
    load.stop();
    for client in clients {
        client.join().expect("a client does not panic");
    }
}

/// Lets the node work.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for but time: load needs it")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
