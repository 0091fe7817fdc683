//! What is measured, and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::children::{World, series, sum};

/// Bounded things whose largest number is noted.
const BOUNDED: [&str; 9] = [
    "flotilla_requests_in_flight",
    "flotilla_connections",
    "flotilla_body_bytes",
    "flotilla_upstream_origins",
    "flotilla_upstream_requests_in_flight",
    "flotilla_upstream_connections_idle",
    "flotilla_log_lines_queued",
    "flotilla_log_lines_dropped_total",
    "flotilla_trace_spans_queued",
];

/// Memory is judged by its floor in windows of this many seconds: what a request needs for a
/// moment is no growth.
const WINDOW: f64 = 10.0;

/// A run's memory over time.
#[derive(Default)]
pub(crate) struct Samples {
    /// Seconds and bytes.
    rss: Vec<(f64, f64)>,
    pub(crate) largest: BTreeMap<&'static str, f64>,
    /// The most series of each family.
    pub(crate) series: BTreeMap<String, usize>,
}

impl Samples {
    /// Looks at the node.
    pub(crate) fn take(&mut self, at: Duration, world: &World) {
        self.rss.push((at.as_secs_f64(), world.node.rss()));
        let text = world.node.metrics();
        for name in BOUNDED {
            let largest = self.largest.entry(name).or_default();
            *largest = largest.max(sum(&text, name));
        }
        for (family, count) in series(&text) {
            let most = self.series.entry(family).or_default();
            *most = count.max(*most);
        }
    }

    /// The floor of each window.
    fn floors(&self) -> Vec<(f64, f64)> {
        let mut floors: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for &(at, rss) in &self.rss {
            let floor = floors.entry((at / WINDOW) as u64).or_insert((at, rss));
            if rss < floor.1 {
                *floor = (at, rss);
            }
        }
        floors.into_values().collect()
    }

    /// By how many bytes the memory of the last quarter is above that of the first.
    pub(crate) fn growth(&self) -> f64 {
        let quarter = self.rss.len().div_ceil(4);
        let middle = |part: &[(f64, f64)]| {
            let mut part: Vec<f64> = part.iter().map(|(_, rss)| *rss).collect();
            part.sort_by(f64::total_cmp);
            part.get(part.len() / 2).copied().unwrap_or_default()
        };
        let (first, last) = (&self.rss[..quarter], &self.rss[self.rss.len() - quarter..]);
        middle(last) - middle(first)
    }

    /// Bytes an hour by least squares through the floors, and the standard error of that.
    pub(crate) fn slope(&self) -> (f64, f64) {
        least_squares(&self.floors())
    }

    /// The same through the flattest third of the run. A leak grows all the time, so in each part of
    /// it; an allocator under load grows in steps, ever rarer ones, each time that more happens at
    /// once than ever before.
    pub(crate) fn flattest_slope(&self) -> (f64, f64) {
        flattest(&self.floors())
    }

    /// For people.
    pub(crate) fn report(&self) -> String {
        let step = self.rss.len().div_ceil(20).max(1);
        let line = |(at, rss): &(f64, f64)| format!("  {at:>7.1} s  {}", mib(*rss));
        let lines: Vec<_> = self.rss.iter().step_by(step).map(line).collect();
        let ((slope, error), (flattest, _)) = (self.slope(), self.flattest_slope());
        format!(
            "resident memory under load:\n{}\nslope {} an hour (standard error {}), of the flattest \
             third {}, last quarter above the first {}",
            lines.join("\n"),
            mib(slope),
            mib(error),
            mib(flattest),
            mib(self.growth())
        )
    }
}

/// The slope of these points for an hour of seconds, and its standard error.
fn least_squares(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    if points.len() < 3 {
        return (0.0, f64::INFINITY);
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let off = |point: &(f64, f64)| (point.1 - y - slope * (point.0 - x)).powi(2);
    let error = (points.iter().map(off).sum::<f64>() / (count - 2.0) / spread).sqrt();
    (slope * 3600.0, error * 3600.0)
}

/// The smallest slope of any third of these points in a row, with its standard error.
fn flattest(points: &[(f64, f64)]) -> (f64, f64) {
    let thirds = points.windows(points.len().div_ceil(3).max(3)).map(least_squares);
    thirds.min_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or((0.0, f64::INFINITY))
}

/// Bytes for people.
pub(crate) fn mib(bytes: f64) -> String {
    format!("{:.2} MiB", bytes / 1024.0 / 1024.0)
}

#[test]
fn a_slope_is_found_and_its_error_is_that_of_the_noise() {
    let straight: Vec<_> = (0..60).map(|at| (f64::from(at), f64::from(at) * 2.0)).collect();
    let (slope, error) = least_squares(&straight);
    assert!((slope - 7200.0).abs() < 1e-6 && error < 1e-6);
    let noise = |at: i32| f64::from(at % 7 * at % 5);
    let noisy: Vec<_> = (0..60).map(|at| (f64::from(at), noise(at))).collect();
    let (slope, error) = least_squares(&noisy);
    assert!(error > 1.0 && slope.abs() < 3.0 * error);
}

#[test]
fn a_leak_is_seen_behind_the_steps_of_an_allocator_and_steps_alone_are_none() {
    // Half a MiB in three steps within ten minutes, as an allocator grows under load.
    let stepped = |at: f64| [45.0, 170.0, 440.0].iter().filter(|step| at > **step).count() as f64;
    let run = |leak_an_hour: f64| -> Vec<(f64, f64)> {
        let seconds = (0..60).map(|at| f64::from(at) * 10.0);
        let bytes = |at: f64| stepped(at) * 170e3 + at * leak_an_hour / 3600.0;
        seconds.map(|at| (at, bytes(at))).collect()
    };
    assert!(least_squares(&run(0.0)).0 > 1e6, "the steps look like a slope");
    assert!(flattest(&run(0.0)).0 < 1e5);
    let (slope, error) = flattest(&run(2e6));
    assert!(slope - 2.0 * error > 1.5e6, "{slope} {error}");
}
