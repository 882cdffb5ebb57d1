//! A sliding working set: a window of pages that moves through memory.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{share_of, Aim, Pattern};
use super::Boot;
use crate::error::Result;
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Writes uniformly within a window that moves through memory at a steady speed and wraps around:
    /// each round finds other pages dirty.
    pub struct Sliding {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Share of memory that the window covers.
        window: f64 [Ratio, 0.0..=1.0] = 0.1,
        /// Seconds of guest time in which the window goes once through memory.
        period: f64 [Seconds, 1e-3..=1e9] = 60.0,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("mix"),
    }
}

/// The window.
#[derive(Debug, Serialize, Deserialize)]
pub struct Window {
    share: f64,
    period: f64,
}

impl Boot for Sliding {
    type Program = Pattern<Window>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Window>> {
        Pattern::new(Window { share: self.window, period: self.period }, self.rate, &self.content, seed)
    }
}

impl Aim for Window {
    const NAME: &'static str = "sliding";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        now: Duration,
        random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let turn = (now.as_secs_f64() / self.period).fract();
        let (first, size) = ((turn * pages as f64) as u64, share_of(pages, self.share));
        (0..count).for_each(|_| write((first + random.random_range(0..size)) % pages));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::rand_core::SeedableRng;

    #[test]
    fn the_window_moves_with_guest_time_and_wraps() {
        let mut random = Pcg32::seed_from_u64(1);
        let mut written = |seconds: f64| {
            let mut hit = [false; 100];
            let mut window = Window { share: 0.1, period: 10.0 };
            let now = Duration::from_secs_f64(seconds);
            window.aim(2000, 100, now, &mut random, |page| hit[page as usize] = true).unwrap();
            (0..100).filter(|page| hit[*page]).collect::<Vec<_>>()
        };
        assert_eq!(written(0.0), (0..10).collect::<Vec<_>>());
        assert_eq!(written(5.05), (50..60).collect::<Vec<_>>());
        assert_eq!(written(19.5), (0..5).chain(95..100).collect::<Vec<_>>());
    }
}
