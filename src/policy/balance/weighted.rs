//! Weighted random choice: stateless, so that nodes need not agree on whose turn it is.
//!
//! Linear in the candidates. Use it where targets differ in capacity and nothing is known of load.

use super::Candidate;

/// Candidates of weight 0 are chosen only where no other is left, and then evenly.
pub(super) fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    if total == 0 {
        let place = scale(random, candidates.len() as u64);
        return candidates.get(usize::try_from(place).ok()?).map(|candidate| candidate.index);
    }
    let mut left = scale(random, total);
    for candidate in candidates {
        let weight = u64::from(candidate.weight);
        if left < weight {
            return Some(candidate.index);
        }
        left -= weight;
    }
    None
}

/// A number in `0..below` from 64 random bits, by the high half of a wide product (Lemire 2019);
/// the bias is below one in 2^32 for any sum of weights.
fn scale(random: u64, below: u64) -> u64 {
    ((u128::from(random) * u128::from(below)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weights: &[u32], draws: u64) -> Vec<u64> {
        let candidates: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Candidate { index, weight: *weight })
            .collect();
        let mut counts = vec![0; weights.len()];
        for draw in 0..draws {
            // The middle of each of `draws` equal parts of the range.
            let random = (2 * draw + 1) * (u64::MAX / (2 * draws));
            counts[choose(&candidates, random).expect("there are candidates")] += 1;
        }
        counts
    }

    #[test]
    fn each_candidate_gets_its_share() {
        assert_eq!(share(&[3, 1], 4000), [3000, 1000]);
        assert_eq!(share(&[0, 1], 100), [0, 100]);
        assert_eq!(share(&[0, 0], 100), [50, 50]);
    }

    #[test]
    fn no_candidates_means_no_choice() {
        assert_eq!(choose(&[], 7), None);
    }
}
