//! A guest whose every write is followed.

use std::sync::Arc;

use super::guest::Guest;
use super::writer::Writer;
use crate::bitmap::{Bitmap, Run};
use crate::error::Result;
use crate::strategy::{AtSend, Chunk};
use crate::trace::Replay;

#[derive(Debug)]
pub(super) struct Followed {
    writer: Writer,
    /// The dirty log.
    dirty: Bitmap,
    /// Pages that hold zeros until they are written.
    zeros: Bitmap,
    paused: bool,
}

impl Followed {
    pub(super) fn new(replay: Arc<Replay>, start: f64, zero_share: f64) -> Result<Self> {
        let pages = replay.pages();
        Ok(Self {
            writer: Writer::new(replay, start)?,
            dirty: Bitmap::new(pages),
            zeros: zero_pages(pages, zero_share),
            paused: false,
        })
    }
}

impl Guest for Followed {
    fn begin(&mut self) {
        self.dirty.clear_all();
    }

    fn run(&mut self, from: f64, to: f64) {
        if !self.paused {
            let dirty = &mut self.dirty;
            self.writer.run(from, to, |brake, page, wall| brake.log(dirty, page, wall));
        }
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) {
        dirty.union_with(&self.dirty);
        if clear {
            self.dirty.clear_all();
        }
    }

    fn prepare(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Vec<Run> {
        match chunk.at_send {
            AtSend::Keep => chunk.runs.clone(),
            AtSend::Clear => {
                self.dirty.runs_in(chunk.span()).for_each(|run| spilled.set_range(run.range()));
                self.dirty.clear_range(chunk.span());
                chunk.runs.iter().for_each(|run| spilled.clear_range(run.range()));
                chunk.runs.clone()
            }
            AtSend::SkipDirty => chunk.runs.iter().flat_map(|run| clean(&self.dirty, *run)).collect(),
        }
    }

    fn zeros(&self, runs: &[Run]) -> Vec<Run> {
        // Pages that were written since they were zero are not any more.
        let zeros = runs.iter().flat_map(|run| self.zeros.runs_in(run.range()));
        zeros.flat_map(|run| clean(self.writer.written(), run)).collect()
    }

    fn scattered(&self, runs: &[Run]) -> u64 {
        runs.len() as u64
    }

    fn throttle(&mut self, percent: f64) {
        self.writer.throttle(percent);
    }

    fn time(&self) -> f64 {
        self.writer.guest_time()
    }

    fn slowdown(&self) -> Option<f64> {
        self.writer.slowdown()
    }

    fn writer(&mut self) -> Option<&mut Writer> {
        Some(&mut self.writer)
    }
}

/// The parts of `run` that are not in `set`.
fn clean(set: &Bitmap, run: Run) -> Vec<Run> {
    let (mut from, mut clean) = (run.first, Vec::new());
    for dirty in set.runs_in(run.range()) {
        if dirty.first > from {
            clean.push(Run { first: from, pages: dirty.first - from });
        }
        from = dirty.end();
    }
    if from < run.end() {
        clean.push(Run { first: from, pages: run.end() - from });
    }
    clean
}

/// A share of pages, scattered: the same ones in every run.
fn zero_pages(pages: u64, share: f64) -> Bitmap {
    let mut zeros = Bitmap::new(pages);
    let limit = (share * 2f64.powi(32)) as u64;
    if limit > 0 {
        (0..pages)
            .filter(|page| crate::guest::scramble(*page) >> 32 < limit)
            .for_each(|page| zeros.set(page));
    }
    zeros
}
