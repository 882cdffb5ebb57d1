//! A seeded permutation of any size in no memory: scatters what would lie side by side.

use crate::guest::random::scramble;

/// Rounds of the Feistel network; four make a pseudorandom permutation out of random functions
/// (Luby and Rackoff, 1988).
const ROUNDS: u64 = 4;

/// A bijection of `0..size`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    size: u64,
    half: u32,
    seed: u64,
}

impl Permutation {
    /// The permutation of `0..size` (1 or more) that `seed` chooses.
    pub fn new(size: u64, seed: u64) -> Self {
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        Self { size: size.max(1), half: bits.div_ceil(2).max(1), seed }
    }

    /// Where `index`, less than the size, goes to.
    pub fn at(&self, index: u64) -> u64 {
        // The network permutes the next power of 4; following it until it comes back into range, at most
        // 4 steps on average, keeps it a bijection.
        let mut place = self.network(index);
        while place >= self.size {
            place = self.network(place);
        }
        place
    }

    fn network(&self, index: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (index >> self.half & mask, index & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, (left ^ scramble(right << 2 ^ round ^ self.seed)) & mask);
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_is_taken_once(size in 1u64..3000, seed: u64) {
            let permutation = Permutation::new(size, seed);
            let mut places: Vec<u64> = (0..size).map(|index| permutation.at(index)).collect();
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..size));
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        let permutation = Permutation::new(1 << 18, 1);
        let near = (0..1000).filter(|i| permutation.at(*i).abs_diff(permutation.at(i + 1)) < 100);
        assert!(near.count() < 10);
    }
}
