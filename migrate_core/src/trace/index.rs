//! An index of a trace that answers "how many distinct pages were written in this window" in logarithmic
//! time, however large the guest.
//!
//! A page counts in intervals `from..to` where its first write at or after `from` lies before `to`: a write
//! whose page was last written before `from`. With the writes in order of time, that is the number of
//! writes in a range of positions whose "previous interval" is less than `from`: a wavelet matrix
//! (Claude, Navarro and Ordóñez, "The wavelet matrix", 2015) answers it one bit of the number at a time.
//!
//! Beyond its end a trace is entered again: before a page's first write came its last one, in the turn
//! before. With L intervals, writes of the turn before have numbers 0 to L - 1, those of this turn L and more.

use std::ops::Range;

use super::Trace;

/// Bits of one level, with the number of ones before each word.
#[derive(Debug, Clone)]
struct Level {
    words: Vec<u64>,
    before: Vec<u32>,
    zeros: u32,
}

impl Level {
    /// Of `bit` of the numbers.
    fn new(numbers: &[u32], bit: u32) -> Self {
        let word = |part: &[u32]| part.iter().rev().fold(0, |word, n| word << 1 | u64::from(n >> bit & 1));
        let mut words: Vec<u64> = numbers.chunks(64).map(word).collect();
        words.resize(numbers.len() / 64 + 1, 0);
        let sum = |ones: &mut u32, word: &u64| Some(std::mem::replace(ones, *ones + word.count_ones()));
        let before: Vec<u32> = words.iter().scan(0, sum).collect();
        let ones: u32 = words.iter().map(|word| word.count_ones()).sum();
        Self { words, before, zeros: numbers.len() as u32 - ones }
    }

    /// Ones before position `at`.
    fn ones(&self, at: u32) -> u32 {
        let (word, bit) = (at as usize / 64, at % 64);
        self.before[word] + (self.words[word] & ((1 << bit) - 1)).count_ones()
    }
}

/// Counts the distinct pages written in any window of a trace, for one stripe of its pages.
#[derive(Debug, Clone)]
pub struct WriteIndex {
    /// Where each interval's writes begin; one more than there are intervals.
    starts: Vec<u32>,
    /// From the highest bit of "previous interval" to the lowest.
    levels: Vec<Level>,
}

impl WriteIndex {
    /// Of the pages of `trace` in `pages`; at most 2^32 - 1 writes.
    pub fn of(trace: &Trace, pages: Range<u64>) -> Self {
        let intervals = trace.intervals();
        let mut last = vec![0u32; (pages.end - pages.start) as usize];
        let mut writes = 0;
        for index in 0..intervals {
            each(trace, index, &pages, |page| (last[page], writes) = (index, writes + 1));
        }
        let (mut starts, mut previous) = (vec![0u32], Vec::with_capacity(writes));
        for index in 0..intervals {
            each(trace, index, &pages, |page| {
                previous.push(std::mem::replace(&mut last[page], intervals + index));
            });
            starts.push(previous.len() as u32);
        }
        let (bits, mut room) = (u32::BITS - (2 * intervals).leading_zeros(), vec![0; writes]);
        let levels = (0..bits).rev().map(|bit| level(&mut previous, &mut room, bit)).collect();
        Self { starts, levels }
    }

    /// Writes in it.
    pub fn writes(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0).into()
    }

    /// Distinct pages written in intervals `from..to`; `from` lies in the trace, what is beyond its end in the
    /// next turn.
    pub fn distinct(&self, from: u32, to: u32) -> u64 {
        let turn = self.starts.len() as u32 - 1;
        if from >= to.min(turn) {
            return 0;
        }
        if to - from >= turn {
            return self.less(0, self.starts[turn as usize], turn).into();
        }
        let here = self.less(self.starts[from as usize], self.starts[to.min(turn) as usize], turn + from);
        let next = to.saturating_sub(turn);
        u64::from(here) + u64::from(self.less(0, self.starts[next as usize], from))
    }

    /// Writes in positions `from..to` whose number is less than `limit`.
    fn less(&self, mut from: u32, mut to: u32, limit: u32) -> u32 {
        let (mut less, count) = (0, self.levels.len());
        for (index, level) in self.levels.iter().enumerate() {
            if from == to {
                break;
            }
            let (ones_from, ones_to) = (level.ones(from), level.ones(to));
            if limit >> (count - 1 - index) & 1 == 1 {
                less += (to - from) - (ones_to - ones_from);
                (from, to) = (level.zeros + ones_from, level.zeros + ones_to);
            } else {
                (from, to) = (from - ones_from, to - ones_to);
            }
        }
        less
    }
}

/// Shows the pages written in an interval, as numbers within `pages`.
fn each(trace: &Trace, interval: u32, pages: &Range<u64>, mut show: impl FnMut(usize)) {
    for run in trace.written(interval) {
        let within = run.first.max(pages.start)..run.end().min(pages.end);
        within.for_each(|page| show((page - pages.start) as usize));
    }
}

/// The level of `bit`, and the numbers sorted by it for the next one, by way of `room`, which is as long.
fn level(numbers: &mut Vec<u32>, room: &mut Vec<u32>, bit: u32) -> Level {
    let level = Level::new(numbers, bit);
    let (mut zeros, mut ones) = (0, level.zeros as usize);
    for &number in numbers.iter() {
        let one = (number >> bit & 1) as usize;
        // Chosen without a branch, which would be guessed wrong half of the time.
        room[std::hint::select_unpredictable(one == 1, ones, zeros)] = number;
        (zeros, ones) = (zeros + 1 - one, ones + one);
    }
    std::mem::swap(numbers, room);
    level
}
