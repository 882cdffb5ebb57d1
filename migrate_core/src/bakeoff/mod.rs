//! The bake-off: codecs measured on real pages, as a migration would use them.
//!
//! A [`PageSet`] is taken from a memory image, a running process, a guest, a captured QEMU stream, or anything that yields pages in the order in
//! which they are sent: [`PageSet::push`] takes the round, the page's number and its bytes, and a page that comes again
//! has the version before it as its base. [`bake`] has a codec encode and decode all of it, several times over.
//!
//! # What is measured
//!
//! What a lane of a migration does. Encoding: to copy a page out of memory, to test it for zeros, to look its last version
//! up, to encode, to keep the version. Decoding: to copy the base, to decode, to put the page in its place. Zero pages
//! are named for no bytes by all but `raw`; `raw` and `zero` do not touch the other pages at all. Time is processor time
//! of one thread. Checksums and sockets are left out: they cost every codec alike.
//!
//! # The break-even
//!
//! Encoder, link and decoder work at the same time, each on its own pages. With codec speed C (the slower end's, in bytes
//! of pages a second), link B and size ratio phi, pages pass at min(B / phi, C); raw they pass at B. Compression pays where
//! phi < 1 and C > B: C is the fastest link on which it does.

mod figures;
mod file;
mod guest;
mod lane;
mod page_set;
mod process;
mod stream;
mod take;

pub use figures::{Baked, Figures, Spread};
pub use file::Images;
pub use guest::{GuestLook, Pause};
pub use page_set::{PageSet, Version};
pub use process::ProcessLook;
pub use stream::of_stream;
pub use take::{Bytes, Memory, Taking};

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::knobs::Spec;
use figures::Tally;
use lane::Lane;

/// Most passes: a figure gets no better beyond.
const MOST_PASSES: usize = 1000;

/// Share of a set that warms up before the first pass, and least batches of it.
const WARM_UP: usize = 8;

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct Baking {
    /// Passes over the set; figures are their median and spread.
    pub passes: usize,
    /// Seconds after which no further pass begins. The first is always made.
    pub seconds: f64,
    /// Whether the 64 pages of a batch are encoded together, as in migrations; otherwise each by itself.
    pub together: bool,
    /// Bytes a second of the link that codecs are told of which go by it; 1 Gbit/s unless given.
    pub link: Option<f64>,
}

impl Default for Baking {
    fn default() -> Self {
        Self { passes: 5, seconds: 10.0, together: true, link: None }
    }
}

/// Measures the codec that `spec` names on `set`. Each page that is decoded is compared with the one that was encoded.
///
/// # Errors
/// [`Error::Usage`] for a codec that there is not, or if it was cancelled; [`Error::Verification`] for a codec whose pages
/// do not come back.
pub fn bake(set: &PageSet, spec: &Spec, how: &Baking, cancel: &AtomicBool) -> Result<Baked> {
    if !(1..=MOST_PASSES).contains(&how.passes) {
        return Err(Error::usage(format!("from 1 to {MOST_PASSES} passes, not {}", how.passes)));
    }
    let batches: Vec<_> = set.batches().collect();
    let pass = |batches: &[Range<usize>]| {
        let mut lane = Lane::new(set, spec, how)?;
        let mut tallies = [Tally::default(); 2];
        for batch in batches {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::usage("the bake-off was cancelled"));
            }
            let part = usize::from(set.versions()[batch.start].before.is_some());
            tallies[part].add(&lane.take(batch.clone())?);
        }
        Ok((tallies, lane.finish()))
    };
    pass(&batches[..batches.len().div_ceil(WARM_UP)])?;
    let (began, mut passes) = (Instant::now(), Vec::new());
    let facts = loop {
        let (tallies, facts) = pass(&batches)?;
        passes.push(tallies);
        if passes.len() == how.passes || began.elapsed().as_secs_f64() > how.seconds {
            break facts;
        }
    };
    Ok(Baked::of(&passes, facts))
}

#[cfg(test)]
mod tests;
