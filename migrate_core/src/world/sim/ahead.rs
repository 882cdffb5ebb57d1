//! A simulated guest whose execution is ahead of its memory.

use super::reader::Reader;
use super::writer::Writer;
use super::OPERATIONS;
use crate::bitmap::{Bitmap, Run};
use crate::report::{Faults, Latencies, Place, Point};

/// Seconds between two looks at the guest's progress.
const LOOK: f64 = 0.1;

/// What is missing at the destination, and what that cost the guest. Only writes are in a trace: reads are assumed.
#[derive(Debug)]
pub(super) struct Ahead {
    reader: Reader,
    missing: Bitmap,
    /// Seconds from a touch of a missing page until it is there.
    latency: f64,
    departed: f64,
    /// Pages on their way, and when they will be there.
    pushed: Vec<Run>,
    coming: f64,
    asked: Vec<u64>,
    points: Vec<Point>,
    stalls: Latencies,
    figures: Faults,
}

impl Ahead {
    /// A guest that went ahead of `missing` at `now`.
    pub(super) fn new(missing: Bitmap, reader: Reader, latency: f64, now: f64) -> Self {
        Self {
            reader,
            missing,
            latency,
            departed: now,
            pushed: Vec::new(),
            coming: 0.0,
            asked: Vec::new(),
            points: Vec::new(),
            stalls: Latencies::new(),
            figures: Faults::default(),
        }
    }

    /// Lets the guest run, waiting for what it touches that is missing.
    pub(super) fn run(&mut self, writer: &mut Writer, from: f64, to: f64) {
        if self.points.last().is_none_or(|point| from - point.time >= LOOK) {
            self.look(writer, from);
        }
        writer.run(from, to, |brake, page, wall| {
            let mut wall = self.touch(page, wall);
            self.reader.written();
            while let Some(page) = self.reader.next() {
                wall = self.touch(page, wall);
            }
            brake.hold(wall);
            true
        });
    }

    /// The guest touches a page at `wall`; when it goes on.
    fn touch(&mut self, page: u64, wall: f64) -> f64 {
        if !self.missing.contains(page) {
            return wall;
        }
        self.missing.clear(page);
        if self.pushed.iter().any(|run| run.range().contains(&page)) {
            return self.coming.clamp(wall, wall + self.latency);
        }
        self.asked.push(page);
        self.stalls.record((self.latency * 1e9) as u64);
        wall + self.latency
    }

    fn look(&mut self, writer: &Writer, time: f64) {
        let operations = (writer.guest_time() * OPERATIONS) as u64;
        self.points.push(Point { time, operations, throttle: 0.0, place: Place::Destination });
    }

    /// `runs` will be there at `coming`.
    pub(super) fn push(&mut self, runs: &[Run], coming: f64) {
        self.pushed = runs.to_vec();
        self.coming = coming;
        self.figures.pushed_pages += runs.iter().map(|run| run.pages).sum::<u64>();
    }

    /// `runs` are there.
    pub(super) fn arrive(&mut self, runs: &[Run]) {
        runs.iter().for_each(|run| self.missing.clear_range(run.range()));
        self.pushed.clear();
    }

    /// Moves what was asked for since the last call to `asked`; how many pages.
    pub(super) fn take_asked(&mut self, asked: &mut Vec<u64>) -> u64 {
        let pages = self.asked.len() as u64;
        self.figures.asked_pages += pages;
        asked.append(&mut self.asked);
        pages
    }

    /// The guest's progress at the destination.
    pub(super) fn progress(&mut self) -> Vec<Point> {
        std::mem::take(&mut self.points)
    }

    /// Remote faults, all of memory being there at `end`.
    pub(super) fn faults(&self, end: f64) -> Faults {
        Faults { duration: end - self.departed, total: self.stalls.summary(), ..self.figures.clone() }
    }
}
