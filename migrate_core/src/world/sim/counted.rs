//! A guest of which only is counted how many pages of each stripe of memory are dirty.
//!
//! Pages of a stripe are told apart by nothing: those that are dirty are said to be its first ones. A stripe
//! that is sent is cleared in the middle of the time that its sending takes.

use std::ops::Range;
use std::sync::Arc;

use super::guest::Guest;
use super::writer::Writer;
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::strategy::{AtSend, Chunk};
use crate::trace::Windows;

#[derive(Debug)]
pub(super) struct Counted {
    windows: Arc<Windows>,
    stripes: Vec<Stripe>,
    /// Moments of the trace at which it was entered, and at which it stands.
    entered: f64,
    at: f64,
    /// When the dirty log was last read.
    synced: f64,
    /// Whether it was read since the start: until then all memory is sent.
    reread: bool,
    /// What the chunk under way has of each stripe, and whether pages that are dirty were left out of it.
    sending: Vec<(usize, u64)>,
    skips: bool,
    /// Pages that a real strategy sends together, and clears before that.
    chunk_pages: f64,
    /// Half the time that the chunk before took, and that a real one would have taken.
    half: f64,
    lead: f64,
    zero_share: f64,
    wall_time: f64,
    throttle: f64,
    paused: bool,
}

/// Moments are those of the trace.
#[derive(Debug)]
struct Stripe {
    pages: Range<u64>,
    /// When its dirty bits were cleared.
    cleared: f64,
    /// From when on pages that are written are to be sent; `cleared`, or before it if they were harvested then.
    since: f64,
    /// Pages that were cleared without being sent, and not written again: they are to be sent too.
    kept: f64,
    /// When the round began in which it was cleared.
    opened: f64,
    /// Whether this round has sent pages of it, and when.
    sent: bool,
    begun: f64,
    ended: f64,
}

impl Counted {
    pub(super) fn new(windows: Arc<Windows>, start: f64, zero_share: f64, chunk_pages: f64) -> Result<Self> {
        if !(0.0..=1e9).contains(&start) {
            return Err(Error::usage(format!("start must be from 0 to 1000000000 s, not {start}")));
        }
        let stripe = |pages| Stripe {
            pages,
            cleared: start,
            since: start,
            kept: 0.0,
            opened: start,
            sent: false,
            begun: start,
            ended: start,
        };
        Ok(Self {
            stripes: windows.stripes().map(stripe).collect(),
            windows,
            entered: start,
            at: start,
            synced: start,
            reread: false,
            sending: Vec::new(),
            skips: false,
            chunk_pages,
            half: 0.0,
            lead: 0.0,
            zero_share,
            wall_time: 0.0,
            throttle: 0.0,
            paused: false,
        })
    }

    /// The runs of each stripe in turn, cut where one ends, and how many pages of them pass.
    fn portions<'a>(&'a self, runs: &'a [Run]) -> impl Iterator<Item = (usize, Run)> + 'a {
        runs.iter().flat_map(move |run| {
            let stripes = self.windows.stripe_of(run.first)..=self.windows.stripe_of(run.end() - 1);
            stripes.map(move |stripe| {
                let pages = &self.stripes[stripe].pages;
                let (first, end) = (run.first.max(pages.start), run.end().min(pages.end));
                (stripe, Run { first, pages: end - first })
            })
        })
    }

    /// Each portion's first pages, as many as `most` says.
    fn first_of(&self, runs: &[Run], most: impl Fn(usize) -> f64) -> Vec<Run> {
        let taken = self.portions(runs).map(|(stripe, run)| {
            let pages = (most(stripe).clamp(0.0, 1.0) * run.pages as f64).round() as u64;
            Run { pages, ..run }
        });
        taken.filter(|run| run.pages > 0).collect()
    }

    fn distinct(&self, stripe: usize, from: f64, to: f64) -> f64 {
        self.windows.distinct(stripe, from, to)
    }

    /// Of the pages of a stripe that this round sends, the share that is dirty again.
    fn dirty_again(&self, stripe: usize) -> f64 {
        let Stripe { pages, since, cleared, .. } = &self.stripes[stripe];
        let middle = self.at + (self.half - self.lead).max(0.0);
        let again = self.distinct(stripe, *cleared, middle);
        if !self.reread {
            return again / (pages.end - pages.start) as f64;
        }
        let sent = self.distinct(stripe, *since, *cleared);
        // Both in the one window and in the other.
        let both = sent + again - self.distinct(stripe, *since, middle);
        if sent > 0.0 {
            both / sent
        } else {
            0.0
        }
    }

    /// Clears a stripe that was sent.
    fn clear_sent(&mut self, index: usize) {
        let (synced, stripe) = (self.synced, &self.stripes[index]);
        let middle = ((stripe.begun + stripe.ended) / 2.0 - self.lead).max(synced);
        let kept = if stripe.sent && self.reread { self.kept(index, middle) } else { 0.0 };
        let stripe = &mut self.stripes[index];
        if stripe.sent {
            (stripe.since, stripe.cleared, stripe.opened) = (middle, middle, synced);
        }
        (stripe.kept, stripe.sent) = (kept, false);
    }

    /// Pages of a stripe that are cleared at `middle` of a round that does not send them, and are not written
    /// after that.
    fn kept(&self, index: usize, middle: f64) -> f64 {
        let Stripe { cleared, kept, opened, .. } = self.stripes[index];
        let (began, now) = (self.synced, self.at);
        let first = |from| self.distinct(index, from, middle) - self.distinct(index, from, began);
        // Written in the round before that, and in none of the time from `cleared` to its beginning.
        let missed = first(cleared);
        // Not written in the time after either. Counts are of windows without gaps: the times before and after
        // are taken for one, in which a steady guest writes as many pages. Or, for a guest that is not steady, as
        // large a part of them is not written again as of all that is written in that round. Both are too low
        // where they do not hold.
        let around = (began - cleared) + (now - middle);
        let steady = self.distinct(index, cleared, now) - self.distinct(index, now - around, now);
        let past = self.distinct(index, began, now) - self.distinct(index, middle, now);
        let quiet = steady.max(missed * past / self.distinct(index, began, middle).max(1.0));
        // Some that the round before kept are sent, and missed only by the dirty log.
        let old = self.distinct(index, opened, began) - self.distinct(index, cleared, began);
        let known =
            if kept > 0.0 && old > 0.0 { (kept / old).min(1.0) * (missed - first(opened)) } else { 0.0 };
        let unsent = if missed > 0.0 { 1.0 - (known / missed).clamp(0.0, 1.0) } else { 0.0 };
        quiet.clamp(0.0, missed.max(0.0)) * unsent
    }

    /// Pages of a stripe that are to be sent.
    fn remaining(&self, index: usize) -> f64 {
        let Stripe { since, kept, .. } = self.stripes[index];
        self.distinct(index, since, self.at) + kept
    }
}

impl Guest for Counted {
    fn begin(&mut self) {
        self.synced = self.at;
        for stripe in &mut self.stripes {
            (stripe.since, stripe.cleared, stripe.opened) = (self.at, self.at, self.at);
        }
    }

    fn run(&mut self, from: f64, to: f64) {
        let begun = self.at;
        if !self.paused {
            self.wall_time += (to - from).max(0.0);
            self.at += (to - from).max(0.0) * (1.0 - self.throttle);
        }
        let sending = std::mem::take(&mut self.sending);
        let all = sending.iter().map(|(_, pages)| *pages).sum::<u64>().max(1) as f64;
        let (mut passed, took) = (0, self.at - begun);
        if !sending.is_empty() {
            (self.half, self.lead) = (took / 2.0, took / all * self.chunk_pages / 2.0);
        }
        for (stripe, pages) in sending {
            let moment = |passed: u64| begun + took * passed as f64 / all;
            let stripe = &mut self.stripes[stripe];
            if !stripe.sent {
                stripe.begun = moment(passed);
            }
            passed += pages;
            (stripe.sent, stripe.ended) = (true, moment(passed));
        }
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) {
        let mut carried = 0.0;
        for index in 0..self.stripes.len() {
            if !clear {
                self.clear_sent(index);
            } else if !self.paused {
                let stripe = &mut self.stripes[index];
                (stripe.since, stripe.cleared) = (stripe.cleared, self.at);
            }
            let left = self.remaining(index);
            let pages = &self.stripes[index].pages;
            let whole = (left + carried).round().clamp(0.0, (pages.end - pages.start) as f64);
            carried += left - whole;
            dirty.set_range(pages.start..pages.start + whole as u64);
        }
        (self.synced, self.reread) = (self.at, true);
    }

    fn prepare(&mut self, chunk: &Chunk, _spilled: &mut Bitmap) -> Vec<Run> {
        self.sending = self.portions(&chunk.runs).map(|(stripe, run)| (stripe, run.pages)).collect();
        self.skips = chunk.at_send == AtSend::SkipDirty;
        match chunk.at_send {
            AtSend::Keep | AtSend::Clear => chunk.runs.clone(),
            AtSend::SkipDirty => self.first_of(&chunk.runs, |stripe| 1.0 - self.dirty_again(stripe)),
        }
    }

    fn zeros(&self, runs: &[Run]) -> Vec<Run> {
        if self.zero_share == 0.0 || self.reread {
            return Vec::new();
        }
        // Pages that were written since they were zero are not any more.
        self.first_of(runs, |stripe| {
            let Stripe { pages, cleared, .. } = &self.stripes[stripe];
            let until = if self.skips { *cleared } else { self.at };
            let written = self.distinct(stripe, self.entered, until) / (pages.end - pages.start) as f64;
            self.zero_share * (1.0 - written)
        })
    }

    fn scattered(&self, runs: &[Run]) -> u64 {
        match self.reread {
            true => (super::guest::total(runs) as f64 * self.windows.runs_per_page()).ceil() as u64,
            false => runs.len() as u64,
        }
    }

    fn throttle(&mut self, percent: f64) {
        self.throttle = (percent / 100.0).clamp(0.0, 0.99);
    }

    fn time(&self) -> f64 {
        self.at - self.entered
    }

    fn slowdown(&self) -> Option<f64> {
        (self.wall_time > 0.0).then(|| (1.0 - self.time() / self.wall_time).max(0.0))
    }

    fn follows(&self) -> bool {
        false
    }

    fn writer(&mut self) -> Option<&mut Writer> {
        None
    }
}
