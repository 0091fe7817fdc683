//! How much there is of something now, counted by guards, so that no path can forget to count down.

use prometheus_client::metrics::gauge::Gauge;

/// A gauge that only guards move. Clones are the same gauge; the default one is reported nowhere.
#[derive(Clone, Debug, Default)]
pub struct Level(pub(super) Gauge);

/// One of what is counted; the level goes down when it is dropped.
#[derive(Debug)]
#[must_use = "it is counted only while this lives"]
pub struct Held(Gauge);

/// What one worker holds towards providers, for other threads to see.
#[derive(Clone, Debug, Default)]
pub struct UpstreamLevels {
    /// Provider addresses.
    pub origins: Level,
    /// Requests in flight, bodies of answers included.
    pub in_flight: Level,
    /// Idle connections.
    pub idle: Level,
}

impl Level {
    /// Counts one more until the guard is dropped.
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.0.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
