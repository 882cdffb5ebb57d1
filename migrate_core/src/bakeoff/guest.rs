//! A guest of ours, stopped for each look.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use super::take::{wait, Memory};
use crate::codec::Page;
use crate::error::Result;
use crate::guest::{GuestMemory, PAGE};

/// Does work while a guest is paused.
pub type Pause<'a> = &'a (dyn Fn(&mut dyn FnMut() -> Result<()>) -> Result<()> + Sync);

/// A guest's memory, looked at again after each interval.
pub struct GuestLook<'a> {
    memory: Arc<GuestMemory>,
    pause: Pause<'a>,
    interval: Duration,
}

impl<'a> GuestLook<'a> {
    /// Of a guest that `pause` stops.
    pub fn new(memory: Arc<GuestMemory>, pause: Pause<'a>, interval: Duration) -> Self {
        Self { memory, pause, interval }
    }
}

impl Memory for GuestLook<'_> {
    fn stretches(&mut self) -> Result<Vec<Range<u64>>> {
        Ok(std::iter::once(0..self.memory.pages()).collect())
    }

    fn read(&mut self, pages: &[u64], each: &mut dyn FnMut(u64, &Page)) -> Result<()> {
        let mut bytes = [0; PAGE];
        (self.pause)(&mut || {
            for page in pages {
                self.memory.read_page(*page, &mut bytes);
                each(*page, &bytes);
            }
            Ok(())
        })
    }

    fn advance(&mut self, cancel: &AtomicBool) -> Result<bool> {
        Ok(wait(self.interval, cancel))
    }
}
