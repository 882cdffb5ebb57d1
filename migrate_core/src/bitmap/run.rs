//! A run of pages.

use std::ops::Range;

/// Half-open run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Index of the first page.
    pub first: u64,
    /// How many pages, at least 1 in a run that a bitmap returns.
    pub pages: u64,
}

impl Run {
    /// Index of the page after the last.
    pub fn end(&self) -> u64 {
        self.first + self.pages
    }

    /// The same as a range of page indices.
    pub fn range(&self) -> Range<u64> {
        self.first..self.end()
    }
}
