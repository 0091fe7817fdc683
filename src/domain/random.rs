//! skeleton replaced at merge
use crate::domain::RequestId;
/// A worker's random source.
#[derive(Debug, Default)]
pub struct Random;
impl Random {
    /// New.
    pub fn new() -> Self {
        Self
    }
    /// Id.
    pub fn next_id(&mut self) -> RequestId {
        RequestId::from_random([0; 16])
    }
    /// Bits.
    pub fn next_u64(&mut self) -> u64 {
        4
    }
}
