//! Metric names, logs. SKELETON.

/// Counters and histograms of the node.
#[derive(Debug, Default)]
pub struct Metrics;
