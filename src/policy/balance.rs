//! Which target of a tier gets the next attempt.

mod weighted;

/// How a target is chosen within a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// At random, in proportion to the weights.
    Weighted,
}

/// What a strategy sees of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The caller's own number for it.
    pub index: usize,
    /// Its configured weight.
    pub weight: u32,
}

impl Strategy {
    /// Chooses among `candidates` with the help of `random`, 64 uniform bits.
    /// None only where there are no candidates.
    #[must_use]
    pub fn choose(self, candidates: &[Candidate], random: u64) -> Option<usize> {
        match self {
            Self::Weighted => weighted::choose(candidates, random),
        }
    }
}
