//! What a codec learns of a guest before the first page is sent.

use std::sync::Arc;

use super::lane::Job;
use super::Source;
use crate::codec::{self, is_zero, Page};
use crate::error::Result;
use crate::guest::PAGE;
use crate::report::Coding;

/// Pages that a codec learns from: the peer waits meanwhile, and a hundred times a dictionary of 10 KiB is enough.
const SAMPLE: u64 = 256;

impl Source {
    /// Has the codec learn from pages all over memory, and both ends of each channel take it over.
    pub(super) fn teach(&mut self) -> Result<()> {
        let Some(spec) = self.sending.codec() else { return Ok(()) };
        let mut codec = codec::find(spec)?;
        let learnt = Arc::new(codec.train(&self.sample())?);
        if learnt.is_empty() {
            return Ok(());
        }
        self.lanes.iter_mut().try_for_each(|lane| lane.send(Job::Learnt(Arc::clone(&learnt))))
    }

    fn sample(&self) -> Vec<Page> {
        let memory = self.guest.memory();
        let step = (memory.pages() / SAMPLE).max(1) as usize;
        let read = |page| {
            let mut bytes = [0; PAGE];
            memory.read_page(page, &mut bytes);
            bytes
        };
        (0..memory.pages()).step_by(step).map(read).filter(|page| !is_zero(page)).collect()
    }

    /// What encoding did and cost, where pages were encoded.
    pub(super) fn coding(&self) -> Option<Coding> {
        self.sending.codec()?;
        let decode_seconds = self.figures.decode_seconds;
        Some(Coding { decode_seconds, ..self.counters.coding().clone() })
    }
}
