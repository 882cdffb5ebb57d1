//! What the benches of codecs share: two ways of doing the same, by turns.
#![allow(dead_code)]

use std::time::Instant;

use migrate_core::codec::Page;

/// Nanoseconds a page of `work` over `pages` pages.
pub fn time(pages: usize, work: &mut dyn FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..pages).for_each(work);
    start.elapsed().as_nanos() as f64 / pages as f64
}

/// Lower quartile, median and upper quartile.
fn quartiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 4], values[values.len() / 2], values[values.len() * 3 / 4])
}

/// Sizes of a run.
pub struct Bench {
    /// Pages of a set.
    pub pages: usize,
    /// Passes over it.
    pub passes: usize,
}

impl Bench {
    /// Runs `ours` and `theirs` by turns, a few pages each, and prints their ratio. A turn is shorter than a
    /// scheduler's slice, so that other work on the machine spoils few pairs and not the median; and the two are
    /// half the set apart, so that neither finds the other's pages in the cache.
    pub fn ratio(
        &self,
        name: &str,
        pages: usize,
        ours: &mut dyn FnMut(usize),
        theirs: &mut dyn FnMut(usize),
    ) {
        let turn = (pages / 16).clamp(1, 128);
        let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..self.passes * pages).step_by(turn) {
            let x = time(turn, &mut |i| ours((start + i) % pages));
            let y = time(turn, &mut |i| theirs((start + i + pages / 2) % pages));
            // The first pass warms up.
            if start >= pages {
                a.push(x);
                b.push(y);
                ratios.push(x / y);
            }
        }
        let ((low, median, high), (_, a, _), (_, b, _)) = (quartiles(ratios), quartiles(a), quartiles(b));
        println!("{name:58} {median:6.2} ({low:5.2} to {high:5.2})  {a:9.0} ns against {b:9.0} ns");
    }

    /// Prints the time of `ours` by itself.
    pub fn alone(&self, name: &str, ours: &mut dyn FnMut(usize)) {
        let turns = (0..400 * self.passes).map(|turn| time(128, &mut |i| ours(turn * 128 + i)));
        let (low, median, high) = quartiles(turns.skip(400).collect());
        println!("{name:58} {median:6.1} ns ({low:.1} to {high:.1})");
    }
}

/// Streaming reads that nothing but memory holds up: sixteen lanes, so that no sum waits for another.
pub fn read(page: &Page) -> u64 {
    let mut lanes = [0u64; 16];
    for chunk in page.as_chunks::<128>().0 {
        for (lane, bytes) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }
    lanes.iter().fold(0, |all, lane| all | lane)
}
