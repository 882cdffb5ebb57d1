//! The software tracker: the workload's own writes mark a bitmap, as a hypervisor's emulated devices do.

use std::ops::Range;
use std::sync::Arc;

use super::{Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::GuestMemory;

crate::knobs! {
    /// Each write of a workload marks its page: no kernel support needed, and no fault taken.
    /// It sees only writes through the guest's own interface: not those of a Python callable.
    pub struct Software {}
}

/// An armed or unarmed software tracker.
#[derive(Debug, Default)]
pub struct SoftwareTracker {
    memory: Option<Arc<GuestMemory>>,
}

impl Track for Software {
    type Tracker = SoftwareTracker;

    const SEES_ALL_WRITERS: bool = false;

    fn probe() -> Result<()> {
        Ok(())
    }

    fn build(self) -> Result<SoftwareTracker> {
        Ok(SoftwareTracker::default())
    }
}

impl SoftwareTracker {
    fn memory(&self) -> Result<&GuestMemory> {
        self.memory.as_deref().ok_or_else(|| Error::usage("the tracker `software` is not armed"))
    }
}

impl Tracker for SoftwareTracker {
    fn name(&self) -> &'static str {
        "software"
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        memory.write_log().harvest(&mut Bitmap::new(memory.pages()));
        self.memory = Some(Arc::clone(memory));
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.memory()?.write_log().harvest_range(pages, into);
        Ok(())
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.memory()?.write_log().peek_range(pages, into);
        Ok(())
    }

    fn disarm(&mut self) {
        self.memory = None;
    }
}
