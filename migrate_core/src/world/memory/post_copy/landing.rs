//! Where pages land at the destination: each is placed once, whatever lane it comes by.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{eventfd, EventfdFlags};
use xxhash_rust::xxh3::xxh3_128;

use super::claims::Claims;
use super::log::{By, Log};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};
use crate::track::Pager;

/// Pages that are claimed and placed together. Who waits for one of them waits for all.
pub(super) const PIECE: u64 = 32;

/// What has come of a piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// Whole pages.
    Bytes(&'a [u8]),
    /// Zeros.
    Zeros,
}

/// A memory on whose missing pages guest threads wait.
#[derive(Debug)]
pub(super) struct Landing {
    pager: Pager,
    /// What the source kept when execution moved.
    missing: Bitmap,
    /// Of it, what nobody has claimed.
    absent: Claims,
    /// Of it, what is not placed for good: a page leaves it after the kernel has it.
    unplaced: Claims,
    left: AtomicU64,
    log: Mutex<Log>,
    /// XXH3-128 of each page as it was placed, if asked for.
    hashes: Option<Mutex<Vec<u128>>>,
    /// Readable once nothing is left.
    done: OwnedFd,
}

impl Landing {
    /// Watches `memory` and throws `missing` away.
    pub(super) fn new(memory: &Arc<GuestMemory>, missing: Bitmap, verify: bool) -> Result<Self> {
        let pager = Pager::new(memory)?;
        missing.runs().try_for_each(|run| pager.discard(run.range()))?;
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::System { what: "making an event".into(), source: e.into() })?;
        let landing = Self {
            pager,
            absent: Claims::new(&missing),
            unplaced: Claims::new(&missing),
            left: AtomicU64::new(missing.count()),
            log: Mutex::default(),
            hashes: verify.then(|| Mutex::new(vec![0; missing.pages() as usize])),
            done,
            missing,
        };
        landing.tell_if_done();
        Ok(landing)
    }

    pub(super) fn pager(&self) -> &Pager {
        &self.pager
    }

    pub(super) fn missing(&self) -> &Bitmap {
        &self.missing
    }

    /// What has not come, for a source that resumes.
    pub(super) fn lacking(&self) -> Result<Bitmap> {
        self.absent.to_bitmap()
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that is readable once nothing is left.
    pub(super) fn done(&self) -> &OwnedFd {
        &self.done
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.load(SeqCst) == 0
    }

    /// Pages placed so far.
    pub(super) fn placed(&self) -> u64 {
        self.missing.count() - self.left.load(SeqCst)
    }

    /// Whether `page` has not come.
    pub(super) fn is_absent(&self, page: u64) -> bool {
        self.absent.contains(page)
    }

    /// Whether `page` is there for good.
    pub(super) fn is_placed(&self, page: u64) -> bool {
        !self.unplaced.contains(page)
    }

    /// Places what nobody has placed of a run of at most [`PIECE`] pages that were here at `here`.
    pub(super) fn land(&self, run: Run, content: Content<'_>, by: By, here: Instant) -> Result<()> {
        let mut landed = 0;
        for claimed in self.absent.claim_run(run) {
            let part = match content {
                Content::Zeros => Content::Zeros,
                Content::Bytes(bytes) => {
                    let from = (claimed.first - run.first) as usize * PAGE;
                    Content::Bytes(&bytes[from..from + claimed.pages as usize * PAGE])
                }
            };
            self.note_hashes(claimed, part);
            match part {
                Content::Bytes(bytes) => self.pager.place(claimed.first, bytes)?,
                Content::Zeros => self.pager.place_zeros(claimed.range())?,
            }
            self.unplaced.claim_run(claimed);
            self.note_faults(claimed, by, here);
            landed += claimed.pages;
        }
        // All counts come before the last page is: they are told then.
        self.log().came(by, landed, run.pages - landed);
        if landed > 0 && self.left.fetch_sub(landed, SeqCst) == landed {
            self.tell_if_done();
        }
        Ok(())
    }

    fn note_hashes(&self, run: Run, content: Content<'_>) {
        let Some(hashes) = &self.hashes else { return };
        let of = |index: usize| match content {
            Content::Bytes(bytes) => xxh3_128(&bytes[index * PAGE..(index + 1) * PAGE]),
            Content::Zeros => xxh3_128(&[0; PAGE]),
        };
        let new: Vec<u128> = (0..run.pages as usize).map(of).collect();
        let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes[run.first as usize..run.end() as usize].copy_from_slice(&new);
    }

    fn note_faults(&self, run: Run, by: By, here: Instant) {
        let mut log = self.log();
        if log.has_open() {
            run.range().for_each(|page| log.placed(page, here, by));
        }
    }

    fn tell_if_done(&self) {
        if self.is_done() {
            // It fails only when the counter is full, which is readable enough.
            let _ = rustix::io::write(&self.done, &1u64.to_ne_bytes());
        }
    }

    /// Checksums of a run of pages as they were placed; `None` if they were not asked for.
    pub(super) fn hashes(&self, run: Run) -> Option<Vec<u128>> {
        let hashes = self.hashes.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(hashes[run.first as usize..run.end() as usize].to_vec())
    }
}
