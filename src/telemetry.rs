//! Metric names, logs. SKELETON.

/// Counters and histograms of the node.
#[derive(Debug, Default)]
pub struct Metrics;
impl Metrics {
    /// s
    pub fn request(&self, _e: &'static str, _p: &str, _o: &'static str, _s: u16, _sec: f64) {}
    /// s
    pub fn attempt(&self, _t: &str, _o: &'static str, _s: f64) {}
    /// s
    pub fn first_token(&self, _t: &str, _s: f64) {}
    /// s
    pub fn tokens(&self, _t: &str, _u: &crate::domain::Usage) {}
}
