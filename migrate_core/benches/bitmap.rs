//! The dirty bitmap's targets, as ratios taken in the same run: `cargo bench -p migrate_core --bench bitmap`.
//!
//! * Harvest of a 1 TiB guest's bitmap, 0.1 % dirty, against merely reading what must be read: the summary and the
//!   lines of words that it names. Target: at most 1.5.
//!   The union into the target has to read as many lines again; the second row counts those too. Untouched target
//!   memory costs page faults besides.
//! * Marking 256 pages as a range against 256 single sets. Target: at least 20.
//!
//! A case is a pair A, B that is run alternately; a ratio is taken within each pair, so that a busy machine slows
//! both. Printed are the median and the quartiles of the ratios, and the ratio of the shortest times, which a busy
//! machine disturbs least.
// A benchmark's output is its purpose.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use migrate_core::bitmap::{Bitmap, DirtyBitmap};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Pages of 4 KiB in 1 TiB.
const PAGES: u64 = 256 << 20;
/// 0.1 % of them.
const DIRTY: u64 = PAGES / 1000;
const PAIRS: usize = 21;
const SEED: u64 = 7;

fn main() {
    println!(
        "{:<48} {:>9} {:>9} {:>7}  {:<15} {:>7}  target",
        "A : B (median, us)", "A", "B", "ratio", "quartiles", "best"
    );
    for cluster in [1, 16] {
        harvest(cluster);
    }
    mark(256 << 10, "in 1 GiB");
    mark(PAGES, "scattered");
}

/// The same bits in plain memory, laid out alike, to be read and no more.
struct Plain {
    lines: Vec<Line>,
    summary: Vec<u64>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Plain {
    fn of(bitmap: &Bitmap) -> Self {
        let lines: Vec<Line> =
            bitmap.words().chunks(8).map(|words| Line(std::array::from_fn(|i| words[i]))).collect();
        let named = |lines: &[Line]| {
            lines.iter().enumerate().fold(0, |bits, (i, line)| bits | u64::from(line.0 != [0; 8]) << i)
        };
        Self { summary: lines.chunks(64).map(named).collect(), lines }
    }

    fn read(&self) -> u64 {
        let mut sum = 0;
        for (index, groups) in self.summary.iter().enumerate() {
            let mut groups = *groups;
            while groups != 0 {
                let line = &self.lines[index * 64 + groups.trailing_zeros() as usize];
                sum = line.0.iter().fold(sum, |sum, word| sum ^ word);
                groups &= groups - 1;
            }
        }
        sum
    }
}

/// First pages of the dirty runs, scattered uniformly.
fn dirty_runs(cluster: u64) -> Vec<u64> {
    let mut rng = Pcg64Mcg::seed_from_u64(SEED);
    (0..DIRTY / cluster).map(|_| rng.random_range(0..PAGES / cluster) * cluster).collect()
}

fn harvest(cluster: u64) {
    let runs = dirty_runs(cluster);
    let shared = DirtyBitmap::new(PAGES);
    let mark = || runs.iter().for_each(|first| shared.set_range(*first..first + cluster));
    mark();
    let mut into = Bitmap::new(PAGES);
    shared.harvest(&mut into);
    let (plain, twin) = (Plain::of(&into), Plain::of(&into));
    let mut evict = Evict::new();
    let (mut reused, mut both, mut fresh, mut looked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let read = evict.then_time(|| plain.read());
        into.clear_all();
        mark();
        let taken = evict.then_time(|| shared.harvest(&mut into));
        reused.push((read, taken));
        both.push((evict.then_time(|| plain.read() ^ twin.read()), taken));
        mark();
        let mut empty = Bitmap::new(PAGES);
        fresh.push((read, evict.then_time(|| shared.harvest(&mut empty))));
        assert_eq!(empty, into);
        mark();
        into.clear_all();
        looked.push((read, evict.then_time(|| shared.peek_range(0..PAGES, &mut into))));
    }
    let case = |what| format!("{what}, runs of {cluster}");
    print(&case("read : harvest"), &reused, "<= 1.5");
    print(&case("read the target's lines too : harvest"), &both, "");
    print(&case("read : harvest into fresh memory"), &fresh, "");
    print(&case("read : peek"), &looked, "");
}

fn mark(pages: u64, what: &str) {
    let mut rng = Pcg64Mcg::seed_from_u64(SEED);
    let starts: Vec<u64> = (0..2000).map(|_| rng.random_range(0..pages / 256 - 1) * 256 + 32).collect();
    let (one, range) = (DirtyBitmap::new(pages), DirtyBitmap::new(pages));
    let mut into = Bitmap::new(pages);
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let b = time(|| starts.iter().for_each(|first| range.set_range(black_box(*first..first + 256))));
        let a = time(|| starts.iter().for_each(|first| (*first..first + 256).for_each(|page| one.set(page))));
        pairs.push((b, a));
        range.harvest(&mut into);
        one.harvest(&mut into);
    }
    print(&format!("set_range of 256 : 256 sets, {what}"), &pairs, ">= 20");
}

/// Drives everything else out of the caches before a measurement: rounds last long enough for the guest to do so.
struct Evict(Vec<u64>);

impl Evict {
    fn new() -> Self {
        Self(vec![1; 16 << 20])
    }

    fn then_time<T>(&mut self, work: impl FnOnce() -> T) -> Duration {
        self.0.iter_mut().step_by(8).for_each(|word| *word += 1);
        black_box(&self.0);
        time(work)
    }
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn print(case: &str, pairs: &[(Duration, Duration)], target: &str) {
    let sorted = |value: fn(&(Duration, Duration)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (a, b) = (sorted(|pair| pair.0.as_secs_f64() * 1e6), sorted(|pair| pair.1.as_secs_f64() * 1e6));
    let ratios = sorted(|pair| pair.1.as_secs_f64() / pair.0.as_secs_f64());
    let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
    let spread = format!("{:.2} .. {:.2}", at(1), at(3));
    let best = b[0] / a[0];
    println!(
        "{case:<48} {:>9.1} {:>9.1} {:>7.2}  {spread:<15} {best:>7.2}  {target}",
        a[a.len() / 2],
        b[b.len() / 2],
        at(2)
    );
}
