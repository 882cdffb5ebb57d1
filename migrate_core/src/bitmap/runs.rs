//! Iteration by runs.

use super::{Bitmap, Run};

/// The runs of a [`Bitmap`], see [`Bitmap::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    bitmap: &'a Bitmap,
    at: u64,
    end: u64,
}

impl<'a> Runs<'a> {
    pub(super) fn new(bitmap: &'a Bitmap, at: u64, end: u64) -> Self {
        Self { bitmap, at, end }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let first = self.bitmap.first_in(self.at..self.end)?;
        self.at = self.bitmap.first_clear_in(first..self.end);
        Some(Run { first, pages: self.at - first })
    }
}
