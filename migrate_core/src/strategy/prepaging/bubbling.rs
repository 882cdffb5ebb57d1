//! Outwards from the pages that were asked for.

use std::collections::VecDeque;

use super::{ascending, Order, Prepaging};
use crate::bitmap::{Bitmap, Run};

crate::knobs! {
    /// Pushes outwards from the latest faults, upwards and downwards in equal parts, since what is near a
    /// page that was touched is touched next (adaptive prepaging with bubbling: Hines and Gopalan, 2009).
    /// Each fault is a pivot; the oldest is dropped. Before the first fault it pushes by ascending address.
    pub struct Bubbling {
        /// Pivots that bubbles grow from at a time; each of them gets a share.
        pivots: u64 [Count, 1.0..=1024.0] = 8,
    }
}

/// A bubble: what it has pushed lies between its edges.
#[derive(Debug, Clone, Copy)]
struct Bubble {
    /// The page below which it grows downwards.
    low: u64,
    /// The page from which it grows upwards.
    high: u64,
    /// Whether the odd page of a chunk goes upwards.
    odd_up: bool,
}

#[derive(Debug)]
struct Machine {
    most_pivots: usize,
    /// The latest first.
    bubbles: VecDeque<Bubble>,
    turn: usize,
}

impl Order for Bubbling {
    fn build(self, _pages: u64) -> Box<dyn Prepaging> {
        Box::new(Machine { most_pivots: self.pivots as usize, bubbles: VecDeque::new(), turn: 0 })
    }
}

impl Bubble {
    /// Grows by at most `most` pages, half to each side if there is something on both.
    fn grow(&mut self, left: &Bitmap, most: u64) -> Vec<Run> {
        let below = descending(left, self.low, most);
        let above = ascending(left, self.high, most);
        let (has_below, has_above) = (pages(&below), pages(&above));
        let half_down = (most + u64::from(!self.odd_up)) / 2;
        self.odd_up = !self.odd_up;
        let up = has_above.min(most - half_down.min(has_below));
        let down = has_below.min(most - up);
        let mut runs = last(below, down);
        if let Some(run) = runs.first() {
            self.low = run.first;
        }
        let upper = first(above, up);
        if let Some(run) = upper.last() {
            self.high = run.end();
        }
        join(&mut runs, upper);
        runs
    }
}

impl Prepaging for Machine {
    fn next(&mut self, left: &Bitmap, most: u64) -> Vec<Run> {
        while !self.bubbles.is_empty() {
            self.turn = (self.turn + 1) % self.bubbles.len();
            let runs = self.bubbles[self.turn].grow(left, most);
            if !runs.is_empty() {
                return runs;
            }
            // It has grown over everything.
            self.bubbles.remove(self.turn);
        }
        ascending(left, 0, most)
    }

    fn asked(&mut self, page: u64) {
        self.bubbles.push_front(Bubble { low: page, high: page + 1, odd_up: true });
        self.bubbles.truncate(self.most_pivots);
        // The latest pivot is served first.
        self.turn = self.bubbles.len() - 1;
    }
}

fn pages(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.pages).sum()
}

/// The `most` highest pages of `left` under `below`, in ascending runs.
fn descending(left: &Bitmap, below: u64, most: u64) -> Vec<Run> {
    let (mut end, mut width) = (below.min(left.pages()), most.max(64));
    let mut runs = Vec::new();
    while end > 0 && pages(&runs) < most {
        let start = end.saturating_sub(width);
        let mut found: Vec<Run> = left.runs_in(start..end).collect();
        join(&mut found, runs);
        (runs, end) = (found, start);
        // Sparse sets are looked through in ever wider steps.
        width *= 2;
    }
    last(runs, most)
}

/// Adds later runs to earlier ones; those that touch become one.
fn join(runs: &mut Vec<Run>, later: Vec<Run>) {
    for run in later {
        match runs.last_mut() {
            Some(last) if last.end() == run.first => last.pages += run.pages,
            _ => runs.push(run),
        }
    }
}

/// The first `most` pages of `runs`.
fn first(mut runs: Vec<Run>, most: u64) -> Vec<Run> {
    let mut room = most;
    runs.retain_mut(|run| {
        run.pages = run.pages.min(room);
        room -= run.pages;
        run.pages > 0
    });
    runs
}

/// The last `most` pages of `runs`.
fn last(mut runs: Vec<Run>, most: u64) -> Vec<Run> {
    let mut excess = pages(&runs).saturating_sub(most);
    runs.retain_mut(|run| {
        let cut = run.pages.min(excess);
        excess -= cut;
        *run = Run { first: run.first + cut, pages: run.pages - cut };
        run.pages > 0
    });
    runs
}
