//! What a simulated guest writes, as the world sees it: followed page by page, or counted.

use std::fmt::Debug;

use super::writer::Writer;
use crate::bitmap::{Bitmap, Run};
use crate::strategy::Chunk;

/// A guest that writes as a trace says, and the dirty log that it fills.
pub(super) trait Guest: Debug + Send {
    /// The migration begins: its dirty log is empty.
    fn begin(&mut self);

    /// Lets it run, unless it is paused, from one moment of the migration to another.
    fn run(&mut self, from: f64, to: f64);

    /// Stops it.
    fn pause(&mut self);

    /// Adds what the dirty log holds to `dirty`, and clears it or not.
    fn sync(&mut self, clear: bool, dirty: &mut Bitmap);

    /// What of `chunk` is sent, after its dirty bits have been seen to.
    fn prepare(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Vec<Run>;

    /// Pages among `runs` that hold zeros.
    fn zeros(&self, runs: &[Run]) -> Vec<Run>;

    /// In how many runs the pages of `runs` really lie.
    fn scattered(&self, runs: &[Run]) -> u64;

    /// Holds it back for `percent` of its time.
    fn throttle(&mut self, percent: f64);

    /// Seconds that it has run by its own clock, since the migration's start.
    fn time(&self) -> f64;

    /// Share of its time that it lost while it ran.
    fn slowdown(&self) -> Option<f64>;

    /// Whether its pages are told apart.
    fn follows(&self) -> bool {
        true
    }

    /// Its writes, where each is followed.
    fn writer(&mut self) -> Option<&mut Writer>;
}

/// Pages in all.
pub(super) fn total(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.pages).sum()
}
