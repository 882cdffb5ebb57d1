//! In the order of the addresses.

use super::{ascending, Order, Prepaging};
use crate::bitmap::{Bitmap, Run};

crate::knobs! {
    /// Pushes pages by ascending address, whatever the guest asks for: active push (Hines and Gopalan,
    /// 2009). A reader that walks ahead of it at s pages per second, p0 pages from its start, asks for
    /// s p0 / (B - s) pages.
    pub struct Sequential {}
}

#[derive(Debug, Default)]
struct Machine {
    cursor: u64,
}

impl Order for Sequential {
    fn build(self, _pages: u64) -> Box<dyn Prepaging> {
        Box::new(Machine::default())
    }
}

impl Prepaging for Machine {
    fn next(&mut self, left: &Bitmap, most: u64) -> Vec<Run> {
        let mut runs = ascending(left, self.cursor, most);
        if runs.is_empty() {
            // After a link was lost, pages behind the cursor may be left again.
            runs = ascending(left, 0, most);
        }
        self.cursor = runs.last().map_or(0, Run::end);
        runs
    }
}
