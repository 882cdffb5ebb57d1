//! What the destination notes of remote faults: which are open, and how long each part of one took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::report::{Faults, Latencies};
use crate::wire::Beat;

/// How a page came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// It was pushed.
    Push,
    /// It was asked for.
    Request,
}

/// A page that a guest thread waits for.
#[derive(Debug, Clone, Copy)]
struct Open {
    noticed: Instant,
    asked: Instant,
}

/// Open faults and the figures of those that are over.
#[derive(Debug, Default)]
pub(super) struct Log {
    open: BTreeMap<u64, Open>,
    faults: Faults,
    request: Latencies,
    transfer: Latencies,
    placement: Latencies,
    total: Latencies,
    began: Option<Instant>,
    lost: Option<Instant>,
}

impl Log {
    /// The guest takes its first step.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A page was asked for.
    pub(super) fn asked(&mut self, page: u64, noticed: Instant, asked: Instant) {
        self.faults.asked_pages += 1;
        self.request.record(nanos(asked - noticed));
        self.open.insert(page, Open { noticed, asked });
    }

    /// Whether a page was asked for and has not come.
    pub(super) fn is_open(&self, page: u64) -> bool {
        self.open.contains_key(&page)
    }

    /// Whether any was.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// All of them: what is to be asked for again over another link.
    pub(super) fn open(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// A page that was here at `here` is placed. Nothing if nobody had asked for it.
    pub(super) fn placed(&mut self, page: u64, here: Instant, by: By) {
        let Some(open) = self.open.remove(&page) else { return };
        let now = Instant::now();
        self.transfer.record(nanos(here.saturating_duration_since(open.asked)));
        self.placement.record(nanos(now.saturating_duration_since(here)));
        self.total.record(nanos(now.saturating_duration_since(open.noticed)));
        self.faults.overtaken_pages += u64::from(by == By::Push);
    }

    /// Pages came, some of them for the second time.
    pub(super) fn came(&mut self, by: By, pages: u64, twice: u64) {
        self.faults.sent_twice += twice;
        if by == By::Push {
            self.faults.pushed_pages += pages;
        }
    }

    /// Bytes came.
    pub(super) fn bytes(&mut self, by: By, bytes: u64) {
        match by {
            By::Push => self.faults.pushed_bytes += bytes,
            By::Request => self.faults.asked_bytes += bytes,
        }
    }

    /// A page of zeros was filled in without a request.
    pub(super) fn filled(&mut self) {
        self.faults.filled_pages += 1;
    }

    /// The link is lost.
    pub(super) fn lost(&mut self) {
        self.faults.lost_links += 1;
        self.lost.get_or_insert_with(Instant::now);
    }

    /// There is another.
    pub(super) fn back(&mut self) {
        let lost = self.lost.take().map_or(Duration::ZERO, |lost| lost.elapsed());
        self.faults.lost_time += lost.as_secs_f64();
    }

    /// A short look at it.
    pub(super) fn beat(&self, placed: u64) -> Beat {
        let (median, p99) = match self.total.count() {
            0 => (0.0, 0.0),
            _ => (self.total.quantile(0.5), self.total.quantile(0.99)),
        };
        Beat { placed, faults: self.faults.asked_pages, median, p99, guest: None }
    }

    /// The figures, once all pages are there.
    pub(super) fn figures(&self) -> Faults {
        Faults {
            duration: self.began.map_or(0.0, |began| began.elapsed().as_secs_f64()),
            request: self.request.summary(),
            transfer: self.transfer.summary(),
            placement: self.placement.summary(),
            total: self.total.summary(),
            // What was asked for and came by the push is not avoided.
            pushed_pages: self.faults.pushed_pages.saturating_sub(self.faults.overtaken_pages),
            ..self.faults.clone()
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
