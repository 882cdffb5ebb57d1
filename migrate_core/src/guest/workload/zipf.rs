//! Zipf writes: the page of rank r is written in proportion to r to the power of -s.

use std::time::Duration;

use rand_distr::Distribution;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{Aim, Pattern};
use super::permutation::Permutation;
use super::Boot;
use crate::error::{Error, Result};
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Writes pages by a Zipf law: a few are hot, most are cold, with everything in between. Which pages
    /// are hot is scattered over memory.
    pub struct Zipf {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// The law's exponent: 0 is uniform, 0.99 is YCSB's.
        s: f64 [Ratio, 0.0..=10.0] = 0.99,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("mix"),
    }
}

/// Ranks of a Zipf law, and where each lies.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ranks {
    s: f64,
    seed: u64,
}

impl Ranks {
    /// The law with exponent `s`, its ranks scattered by `seed`.
    pub fn new(s: f64, seed: u64) -> Self {
        Self { s, seed }
    }

    /// Draws from `0..size` (1 or more) for as long as is wanted; drawing takes constant time.
    pub fn over(self, size: u64) -> Result<impl Fn(&mut Pcg32) -> u64> {
        let law = rand_distr::Zipf::new(size as f64, self.s)
            .map_err(|e| Error::usage(format!("a Zipf law of exponent {} over {size}: {e}", self.s)))?;
        let place = Permutation::new(size, self.seed);
        Ok(move |random: &mut Pcg32| place.at((law.sample(random) as u64).clamp(1, size) - 1))
    }
}

impl Boot for Zipf {
    type Program = Pattern<Ranks>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Ranks>> {
        Pattern::new(Ranks::new(self.s, seed), self.rate, &self.content, seed)
    }
}

impl Aim for Ranks {
    const NAME: &'static str = "zipf";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        _now: Duration,
        random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let draw = self.over(pages)?;
        (0..count).for_each(|_| write(draw(random)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::rand_core::SeedableRng;

    #[test]
    fn ranks_follow_the_law() {
        let (size, s, draws) = (1000u64, 0.99, 200_000);
        let (draw, mut random) = (Ranks::new(s, 3).over(size).unwrap(), Pcg32::seed_from_u64(1));
        let mut counts = vec![0u32; size as usize];
        (0..draws).for_each(|_| counts[draw(&mut random) as usize] += 1);
        let weight = |rank: u64| (rank as f64).powf(-s);
        let all: f64 = (1..=size).map(weight).sum();
        for rank in [1, 2, 5, 20] {
            let place = Permutation::new(size, 3).at(rank - 1) as usize;
            let (got, expected) = (f64::from(counts[place]), weight(rank) / all * f64::from(draws));
            assert!((got / expected - 1.0).abs() < 0.1, "rank {rank}: {got}, not {expected}");
        }
    }
}
