//! placeholder until config's lands
use crate::domain::Usage;
#[derive(Debug, Default)]
pub struct Estimates;
pub struct Output {
    pub most: Option<u64>,
    pub choices: u32,
}
impl Estimates {
    pub fn estimate(&mut self, _model: &str, bytes: u64, output: Option<Output>) -> (u64, u64) {
        (bytes.div_ceil(4), output.map_or(0, |o| o.most.unwrap_or(1024) * u64::from(o.choices)))
    }
    pub fn observe(&mut self, _model: &str, _bytes: u64, _usage: Usage) {}
}
pub fn step(paid: u64) -> u64 {
    (paid / 2).max(256)
}
