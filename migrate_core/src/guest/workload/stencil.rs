//! A stencil kernel: waves on a torus, computed in whole numbers over two buffers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pattern::paced;
use super::{too_small, Boot, Tick, Work, Workload};
use crate::error::{Error, Result};
use crate::guest::random::scramble;
use crate::guest::{Region, PAGE};

crate::knobs! {
    /// The wave equation by a five-point stencil: a numerical code that rewrites half of its memory in each
    /// step while it reads the other half. It computes in whole numbers, so that what neighbours exchange
    /// cancels exactly: the momentum is the same after every step. The check compares it, and a running
    /// sum over all cells, with what memory holds.
    pub struct Stencil {
        /// Bytes of cells written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
    }
}

/// Cells in a row: a row is a page.
const CELLS: usize = PAGE / 8;
/// The least memory, in pages: three rows in two buffers.
const LEAST_PAGES: u64 = 6;

type Row = [i64; CELLS];

/// A kernel that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waves {
    rate: f64,
    rows: u64,
    /// Steps done; the buffer of the step before the last is written over by the step under way.
    steps: u64,
    /// The row that is computed next.
    row: u64,
    momentum: i64,
    sum: u64,
}

impl Boot for Stencil {
    type Program = Waves;
    const KEEPS_DATA: bool = true;

    fn boot(self, seed: u64, ram: &Region) -> Result<Waves> {
        if ram.pages() < LEAST_PAGES {
            return Err(too_small("stencil", LEAST_PAGES * PAGE as u64, ram));
        }
        let rows = ram.pages() / 2;
        let mut waves = Waves { rate: self.rate, rows, steps: 0, row: 0, momentum: 0, sum: 0 };
        for row in 0..rows {
            let [before, after] = first_rows(row, seed);
            waves.place(ram, 0, row, &before);
            waves.place(ram, 1, row, &after);
            waves.momentum = waves.momentum.wrapping_add(difference(&after, &before));
        }
        Ok(waves)
    }
}

/// A row at two moments: ridges that cross, those along the rows in motion.
fn first_rows(row: u64, seed: u64) -> [Row; 2] {
    let ridge = |place: u64, length: u64| ((place % length).abs_diff(length / 2) * 1000) as i64;
    let across = |cell: usize| ridge(cell as u64 + scramble(seed) % 512, 128);
    [0, 1].map(|moment| {
        let along = ridge(row + moment + scramble(seed + 1) % 512, 200);
        std::array::from_fn(|cell| along + across(cell))
    })
}

fn difference(after: &Row, before: &Row) -> i64 {
    after.iter().zip(before).fold(0, |sum: i64, (a, b)| sum.wrapping_add(a.wrapping_sub(*b)))
}

/// The row after `now`, which was `before`: twice the one less the other, and what flows in from each
/// neighbour. Division rounds towards zero, so that what one cell gives its neighbour takes.
fn step(before: &Row, above: &Row, now: &Row, below: &Row) -> Row {
    std::array::from_fn(|i| {
        let flow = |from: i64| from.wrapping_sub(now[i]) / 8;
        let (left, right) = (now[(i + CELLS - 1) % CELLS], now[(i + 1) % CELLS]);
        let inflow =
            flow(above[i]).wrapping_add(flow(below[i])).wrapping_add(flow(left)).wrapping_add(flow(right));
        now[i].wrapping_mul(2).wrapping_sub(before[i]).wrapping_add(inflow)
    })
}

/// A row's part in the running sum. Weights are odd: no change of a single cell goes unseen.
fn weigh(buffer: u64, row: u64, cells: &Row) -> u64 {
    let weight = scramble(row << 1 | buffer) | 1;
    let one = |(i, cell): (usize, &i64)| (*cell as u64).wrapping_mul(weight.wrapping_mul(2 * i as u64 + 1));
    cells.iter().enumerate().map(one).fold(0, u64::wrapping_add)
}

impl Waves {
    fn get(&self, ram: &Region, buffer: u64, row: u64) -> Row {
        let mut bytes = [0; PAGE];
        ram.read((buffer * self.rows + row) * PAGE as u64, &mut bytes);
        let mut cells = [0; CELLS];
        for (cell, bytes) in cells.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *cell = i64::from_le_bytes(word);
        }
        cells
    }

    fn place(&mut self, ram: &Region, buffer: u64, row: u64, cells: &Row) {
        let mut bytes = [0; PAGE];
        for (bytes, cell) in bytes.chunks_exact_mut(8).zip(cells) {
            bytes.copy_from_slice(&cell.to_le_bytes());
        }
        ram.write((buffer * self.rows + row) * PAGE as u64, &bytes);
        self.sum = self.sum.wrapping_add(weigh(buffer, row, cells));
    }

    /// The buffers of the step before the last and of the last.
    fn buffers(&self) -> (u64, u64) {
        (self.steps % 2, 1 - self.steps % 2)
    }

    fn advance(&mut self, ram: &Region) {
        let ((old, new), row) = (self.buffers(), self.row);
        let (up, down) = ((row + self.rows - 1) % self.rows, (row + 1) % self.rows);
        let before = self.get(ram, old, row);
        let [above, now, below] = [up, row, down].map(|row| self.get(ram, new, row));
        self.sum = self.sum.wrapping_sub(weigh(old, row, &before));
        self.place(ram, old, row, &step(&before, &above, &now, &below));
        self.row = down;
        self.steps += u64::from(down == 0);
    }
}

impl Workload for Waves {
    fn name(&self) -> &'static str {
        "stencil"
    }

    fn rate(&self, _now: Duration) -> f64 {
        paced(self.rate)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let rows = tick.budget / PAGE as u64;
        (0..rows).for_each(|_| self.advance(ram));
        Ok(Work { written: rows * PAGE as u64, operations: rows })
    }

    fn check(&self, ram: &Region) -> Result<()> {
        let ((old, new), mut sum, mut momentum) = (self.buffers(), 0u64, 0i64);
        for row in 0..self.rows {
            let (before, after) = (self.get(ram, old, row), self.get(ram, new, row));
            sum = sum.wrapping_add(weigh(old, row, &before)).wrapping_add(weigh(new, row, &after));
            momentum = momentum.wrapping_add(difference(&after, &before));
        }
        if sum != self.sum {
            return Err(Error::Verification("stencil: the cells do not have their sum".into()));
        }
        // Between two steps only: within one, some rows are a step ahead.
        if self.row == 0 && momentum != self.momentum {
            let was = self.momentum;
            return Err(Error::Verification(format!("stencil: the momentum is {momentum}, not {was}")));
        }
        Ok(())
    }

    fn save(&self) -> Result<Value> {
        super::save(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{GuestMemory, Layout};
    use std::sync::Arc;

    #[test]
    fn waves_conserve_momentum_and_neither_die_nor_grow() {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let ram = Region::whole(&memory);
        let mut waves = Stencil { rate: 0.0 }.boot(1, &ram).unwrap();
        let budget = waves.rows * PAGE as u64;
        let mut motion = Vec::new();
        for _ in 0..100 {
            waves.run(&ram, Tick { now: Duration::ZERO, budget }).unwrap();
            assert_eq!(waves.row, 0);
            waves.check(&ram).unwrap();
            let (a, b) = (waves.get(&ram, 0, 7), waves.get(&ram, 1, 7));
            motion.push(a.iter().zip(&b).map(|(a, b)| (a - b).abs()).max().unwrap());
        }
        assert!(motion.iter().all(|m| (1..100_000).contains(m)), "{motion:?}");
    }
}
