//! Hot and cold pages: most writes go to a small share of memory.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{share_of, Aim, Pattern};
use super::permutation::Permutation;
use super::Boot;
use crate::error::Result;
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Sends a share of writes to a share of memory and the rest to the rest, uniform within each: the
    /// writable working set with a sharp edge. The hot pages are scattered over memory.
    pub struct HotCold {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Share of memory that is hot.
        hot_share: f64 [Ratio, 0.0..=1.0] = 0.1,
        /// Share of writes that go there.
        hot_writes: f64 [Ratio, 0.0..=1.0] = 0.9,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("mix"),
    }
}

/// The two sets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sets {
    share: f64,
    writes: f64,
    seed: u64,
}

impl Boot for HotCold {
    type Program = Pattern<Sets>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Sets>> {
        let sets = Sets { share: self.hot_share, writes: self.hot_writes, seed };
        Pattern::new(sets, self.rate, &self.content, seed)
    }
}

impl Aim for Sets {
    const NAME: &'static str = "hot-cold";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        _now: Duration,
        random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let (scattered, hot) = (Permutation::new(pages, self.seed), share_of(pages, self.share));
        for _ in 0..count {
            let to_hot = hot == pages || random.random::<f64>() < self.writes;
            let range = if to_hot { 0..hot } else { hot..pages };
            write(scattered.at(random.random_range(range)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::rand_core::SeedableRng;

    #[test]
    fn the_hot_set_has_its_size_and_its_share_of_writes() {
        let mut counts = vec![0u32; 1000];
        let mut sets = Sets { share: 0.1, writes: 0.9, seed: 5 };
        let mut random = Pcg32::seed_from_u64(2);
        sets.aim(100_000, 1000, Duration::ZERO, &mut random, |page| counts[page as usize] += 1).unwrap();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = counts[..100].iter().sum();
        assert!((89_000..91_000).contains(&hot), "{hot}");
        assert!(counts[99] > 500 && counts[100] < 50, "{} {}", counts[99], counts[100]);
    }
}
