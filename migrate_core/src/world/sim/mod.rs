//! The simulator: a trace for a guest, a model for a link, a virtual clock.
//!
//! It is a [`World`] like the others, so that the strategies, policies and the loop that run real memory
//! run here. Every page is followed: what was written before it was sent, and what after. A run is a
//! function of its inputs.

mod ahead;
mod batch;
mod costs;
mod line;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use ahead::Ahead;
pub use batch::{batch, Trial, Verdict};
pub use costs::Costs;
use line::Line;
use writer::Writer;

use super::{Sent, World};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::knobs::Spec;
use crate::link::LinkSpec;
use crate::policy::Act;
use crate::report::{Event, GuestCost, Happening, Point, Report};
use crate::strategy::{AtSend, Chunk, Strategy};
use crate::trace::Replay;
use crate::wire;

/// What is simulated, beside the trace and the strategy. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// The link; it must have a bandwidth.
    pub link: LinkSpec,
    /// What a migration costs beside sending.
    pub costs: Costs,
    /// Where in the trace the migration starts; the trace is entered again from its start at its end.
    pub start: f64,
    /// Share of the pages that are zero until the trace writes them, from 0 to 1.
    pub zero_share: f64,
    /// Give up after so many simulated seconds.
    pub longest: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            link: LinkSpec::default(),
            costs: Costs::default(),
            start: 0.0,
            zero_share: 0.0,
            longest: 86_400.0,
        }
    }
}

/// What the simulated guest does in a second: its progress is told in microseconds of its own time.
const OPERATIONS: f64 = 1e6;
/// The least number of chunks that memory is sent in: the moments at which `late` clears.
const LEAST_CHUNKS: u64 = 2048;

/// The strategy that `spec` names, for `replay`: where one page stands for many, with chunks of as many
/// bytes, though no more of them than tell the clear disciplines apart.
pub fn scaled(spec: &Spec, replay: &Replay) -> Result<Box<dyn Strategy>> {
    if replay.weight() == 1 {
        return crate::strategy::find(spec);
    }
    let whole = spec.knobs.get("chunk_pages").and_then(serde_json::Value::as_u64).unwrap_or(256);
    let chunk = (whole / replay.weight()).max(replay.pages() / LEAST_CHUNKS).max(1);
    crate::strategy::find(&spec.clone().with("chunk_pages", chunk))
}

/// The simulated world.
pub struct Sim {
    pages: u64,
    /// Pages of the guest that each page here stands for.
    weight: u64,
    scenario: Scenario,
    line: Line,
    writer: Writer,
    now: f64,
    /// The dirty log.
    dirty: Bitmap,
    /// Pages that hold zeros.
    zeros: Bitmap,
    sent: Sent,
    paused_at: Option<f64>,
    /// Where execution is ahead of memory.
    ahead: Option<Ahead>,
    figures: Figures,
    events: Vec<Event>,
}

#[derive(Debug, Default)]
struct Figures {
    first_page: f64,
    last_page: f64,
    blackout: Option<f64>,
    total: f64,
}

impl Sim {
    /// A guest that writes as `replay` says.
    pub fn new(replay: Arc<Replay>, scenario: Scenario) -> Result<Self> {
        let line = Line::new(&scenario.link, scenario.costs.buffer)?;
        scenario.costs.validate()?;
        if !(0.0..=1.0).contains(&scenario.zero_share) {
            return Err(Error::usage(format!("zero_share must be from 0 to 1, not {}", scenario.zero_share)));
        }
        let (pages, weight) = (replay.pages(), replay.weight());
        Ok(Self {
            pages,
            weight,
            line,
            writer: Writer::new(replay, scenario.start)?,
            now: 0.0,
            dirty: Bitmap::new(pages),
            zeros: zero_pages(pages, scenario.zero_share),
            scenario,
            sent: Sent::default(),
            paused_at: None,
            ahead: None,
            figures: Figures::default(),
            events: Vec::new(),
        })
    }

    /// The guest's memory.
    fn bytes(&self) -> u64 {
        self.pages * self.weight * PAGE as u64
    }

    fn gib(&self) -> f64 {
        self.bytes() as f64 / (1u64 << 30) as f64
    }

    fn mark(&mut self, what: Happening) {
        self.events.push(Event { time: self.now, what });
    }

    /// Lets time pass, in which the guest writes unless it is paused.
    fn pass(&mut self, until: f64) -> Result<()> {
        match (&mut self.ahead, self.paused_at) {
            (Some(ahead), _) => ahead.run(&mut self.writer, self.now, until),
            (None, None) => {
                let dirty = &mut self.dirty;
                self.writer.run(self.now, until, |brake, page, wall| brake.log(dirty, page, wall));
            }
            (None, Some(_)) => {}
        }
        self.now = until.max(self.now);
        if self.now > self.scenario.longest {
            let longest = self.scenario.longest;
            return Err(Error::usage(format!(
                "no end after {longest} simulated seconds: the policy never ends this run"
            )));
        }
        Ok(())
    }

    fn count(&mut self, sent: Sent) {
        self.sent.bytes += sent.bytes;
        self.sent.pages += sent.pages * self.weight;
        self.sent.zero_pages += sent.zero_pages * self.weight;
    }

    /// The state goes there and its acknowledgement comes back; then the word to run goes there.
    fn move_execution(&mut self) -> Result<()> {
        let carried = self.line.drained(self.now);
        self.pass(carried + self.line.round_trip() + self.scenario.costs.load)?;
        self.mark(Happening::Acknowledged);
        self.pass(self.now + self.line.round_trip() / 2.0 + self.scenario.costs.resume)?;
        self.figures.blackout = self.paused_at.map(|paused| self.now - paused);
        self.mark(Happening::Resumed);
        Ok(())
    }

    /// Takes what the guest asked for into account: its bytes go before what is pushed next.
    fn serve_asked(&mut self, asked: &mut Vec<u64>) -> Result<()> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let pages = ahead.take_asked(asked);
        let bytes = pages * wire::pages_bytes(1, 1) * self.weight;
        self.count(Sent { bytes, pages, ..Sent::default() });
        let until = self.line.put(self.now, bytes, false);
        self.pass(until)
    }

    /// What of `chunk` is sent, after its dirty bits have been seen to.
    fn prepare(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Vec<Run> {
        match chunk.at_send {
            AtSend::Keep => chunk.runs.clone(),
            AtSend::Clear => {
                self.dirty.runs_in(chunk.span()).for_each(|run| spilled.set_range(run.range()));
                self.dirty.clear_range(chunk.span());
                chunk.runs.iter().for_each(|run| spilled.clear_range(run.range()));
                chunk.runs.clone()
            }
            AtSend::SkipDirty => chunk.runs.iter().flat_map(|run| clean(&self.dirty, *run)).collect(),
        }
    }

    /// Bytes that `runs` take on the wire, and the zero pages among them.
    fn encode(&mut self, runs: &[Run]) -> Sent {
        // Pages that were written since they were zero are not any more.
        let zero_runs: Vec<Run> = runs.iter().flat_map(|run| self.zeros.runs_in(run.range())).collect();
        let zeros: Vec<Run> = zero_runs.iter().flat_map(|run| clean(self.writer.written(), *run)).collect();
        let (pages, zero_pages) = (total(runs), total(&zeros));
        let others = match zero_pages {
            0 => runs.len(),
            // A zero run cuts a run in two, at most.
            _ => runs.len() + zeros.len(),
        };
        let bytes =
            wire::pages_bytes(others as u64, pages - zero_pages) + wire::zeros_bytes(zeros.len() as u64);
        Sent { bytes: bytes * self.weight, pages, zero_pages, ..Sent::default() }
    }
}

fn total(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.pages).sum()
}

/// The parts of `run` that are not in `set`.
fn clean(set: &Bitmap, run: Run) -> Vec<Run> {
    let (mut from, mut clean) = (run.first, Vec::new());
    for dirty in set.runs_in(run.range()) {
        if dirty.first > from {
            clean.push(Run { first: from, pages: dirty.first - from });
        }
        from = dirty.end();
    }
    if from < run.end() {
        clean.push(Run { first: from, pages: run.end() - from });
    }
    clean
}

/// A share of pages, scattered: the same ones in every run.
fn zero_pages(pages: u64, share: f64) -> Bitmap {
    let mut zeros = Bitmap::new(pages);
    let limit = (share * 2f64.powi(32)) as u64;
    if limit > 0 {
        (0..pages)
            .filter(|page| crate::guest::scramble(*page) >> 32 < limit)
            .for_each(|page| zeros.set(page));
    }
    zeros
}

impl World for Sim {
    fn now(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    fn pages(&self) -> u64 {
        self.pages
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn begin(&mut self) -> Result<()> {
        let setup = self.scenario.costs.setup + self.scenario.costs.setup_per_gib * self.gib();
        self.pass(setup + self.line.round_trip())?;
        self.dirty.clear_all();
        (self.figures.first_page, self.figures.last_page) = (self.now, self.now);
        Ok(())
    }

    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) -> Result<()> {
        self.pass(self.now + self.scenario.costs.scan_per_gib * self.gib())?;
        dirty.union_with(&self.dirty);
        if clear {
            self.dirty.clear_all();
        }
        Ok(())
    }

    fn send(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Result<()> {
        let runs = self.prepare(chunk, spilled);
        let sent = self.encode(&runs);
        self.sent.skipped_pages += (chunk.pages() - sent.pages) * self.weight;
        let until = self.line.put(self.now, sent.bytes, self.paused_at.is_none());
        self.count(sent);
        self.pass(until)
    }

    fn settle(&mut self) -> Result<Sent> {
        self.figures.last_page = self.now;
        self.pass(self.now + self.scenario.costs.round)?;
        Ok(self.sent)
    }

    fn sent(&self) -> Sent {
        self.sent
    }

    fn wait(&mut self) -> Result<()> {
        self.pass(self.now + 1e-3)
    }

    fn pause(&mut self) -> Result<()> {
        self.paused_at = Some(self.now);
        self.mark(Happening::Paused);
        self.pass(self.now + self.scenario.costs.stop)
    }

    fn switch_over(&mut self) -> Result<()> {
        self.move_execution()?;
        self.pass(self.now + self.line.round_trip() / 2.0)?;
        self.figures.total = self.now;
        Ok(())
    }

    fn depart(&mut self, missing: &Bitmap) -> Result<()> {
        self.move_execution()?;
        let latency = self.line.round_trip() + self.line.seconds(wire::pages_bytes(1, 1));
        self.ahead = Some(Ahead::new(missing.clone(), latency, self.now));
        Ok(())
    }

    fn departed(&self) -> bool {
        self.ahead.is_some()
    }

    fn push(&mut self, runs: &[Run], asked: &mut Vec<u64>) -> Result<()> {
        let sent = self.encode(runs);
        let until = self.line.put(self.now, sent.bytes, false);
        self.count(sent);
        let coming = self.line.drained(until) + self.line.round_trip() / 2.0;
        self.ahead.iter_mut().for_each(|ahead| ahead.push(runs, coming));
        self.pass(until)?;
        self.ahead.iter_mut().for_each(|ahead| ahead.arrive(runs));
        self.serve_asked(asked)
    }

    fn serve(&mut self, asked: &mut Vec<u64>) -> Result<()> {
        self.pass(self.now + 1e-3)?;
        self.serve_asked(asked)
    }

    fn complete(&mut self) -> Result<()> {
        self.pass(self.line.drained(self.now) + self.line.round_trip())?;
        self.figures.last_page = self.now;
        self.figures.total = self.now;
        self.mark(Happening::Completed);
        Ok(())
    }

    fn has_let_go(&self) -> bool {
        self.ahead.is_some()
    }

    fn operations(&self) -> Option<u64> {
        Some((self.writer.guest_time() * OPERATIONS) as u64)
    }

    fn progress_there(&mut self) -> Vec<Point> {
        self.ahead.as_mut().map(Ahead::progress).unwrap_or_default()
    }

    fn abandon(&mut self, _why: &str) {
        self.figures.total = self.now;
    }

    fn obey(&mut self, act: &Act) -> Result<()> {
        match *act {
            Act::Throttle { percent } => self.writer.throttle(percent),
            Act::Limit { bandwidth, dirty_rate, write_delay, .. } => {
                bandwidth.into_iter().for_each(|rate| self.line.limit(rate));
                let weight = self.weight as f64;
                let spacing = |rate| if rate > 0.0 { weight * PAGE as f64 / rate } else { 0.0 };
                dirty_rate.into_iter().for_each(|rate| self.writer.brake().space(spacing(rate)));
                write_delay.into_iter().for_each(|held| self.writer.brake().delay(held.max(0.0) * weight));
            }
            _ => {}
        }
        Ok(())
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn report(&mut self, report: &mut Report) {
        let sending = self.figures.last_page - self.figures.first_page;
        report.world = "sim".into();
        report.memory_bytes = self.bytes();
        (report.total_time, report.setup_time) = (self.figures.total, self.figures.first_page);
        (report.blackout, report.guest_gap) = (self.figures.blackout, self.figures.blackout);
        report.guest_gap_error = self.figures.blackout.map(|_| 0.0);
        report.sender_pause = self.paused_at.map(|paused| self.figures.total - paused);
        report.throughput = if sending > 0.0 { report.sent_bytes as f64 / sending } else { 0.0 };
        report.guest_cost =
            GuestCost { before: Some(OPERATIONS), slowdown: self.writer.slowdown(), ..GuestCost::default() };
        report.faults = self.ahead.as_ref().map(|ahead| ahead.faults(self.figures.total));
    }
}
