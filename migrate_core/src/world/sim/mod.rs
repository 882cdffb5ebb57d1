//! The simulator: a trace for a guest, a model for a link, a virtual clock.
//!
//! It is a [`World`] like the others, so that the strategies, policies and the loop that run real memory
//! run here. A run is a function of its inputs. Every page is followed: what was written before it was sent,
//! and what after; or pages are only counted, which takes microseconds a round however large the guest.

mod ahead;
mod batch;
mod chunks;
mod coding;
mod costs;
mod counted;
mod followed;
mod guest;
mod line;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use ahead::Ahead;
pub use batch::{batch, Guests, Trial, Verdict};
use chunks::chunk_pages;
pub use chunks::{hurried, scaled};
pub use coding::Coding;
use coding::{without, Encoder};
pub use costs::Costs;
use counted::Counted;
use followed::Followed;
use guest::{total, Guest};
use line::Line;
use reader::Reader;
pub use reader::Reads;
use writer::Writer;

use super::{Sent, World};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::knobs::Spec;
use crate::link::LinkSpec;
use crate::policy::Act;
use crate::report::{Event, GuestCost, Happening, Point, Report};
use crate::strategy::Chunk;
use crate::trace::{Replay, Windows};
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
    /// What the guest reads, where execution is ahead of memory; by default nothing.
    pub reads: Reads,
    /// How pages are encoded; by default zero pages are named and the others raw.
    pub coding: Option<Coding>,
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
            reads: Reads::default(),
            coding: None,
            longest: 86_400.0,
        }
    }
}

/// What the simulated guest does in a second: its progress is told in microseconds of its own time.
const OPERATIONS: f64 = 1e6;

/// The simulated world.
pub struct Sim {
    pages: u64,
    /// Pages of the guest that each page here stands for.
    weight: u64,
    scenario: Scenario,
    line: Line,
    encoder: Option<Encoder>,
    guest: Box<dyn Guest>,
    /// Whether something was asked for that takes a guest whose pages are followed.
    needs_pages: bool,
    now: f64,
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
    /// A guest that writes as `replay` says, every page of which is followed.
    pub fn new(replay: Arc<Replay>, scenario: Scenario) -> Result<Self> {
        let (pages, weight) = (replay.pages(), replay.weight());
        let guest = Followed::new(replay, scenario.start, scenario.zero_share)?;
        Self::of(Box::new(guest), pages, weight, scenario)
    }

    /// A guest of which only is counted how much is dirty. It cannot be throttled by its writes, nor run ahead
    /// of its memory; see [`Sim::needs_pages`].
    /// `strategy` is what moves it, in chunks of its own.
    pub fn counted(windows: Arc<Windows>, scenario: Scenario, strategy: &Spec) -> Result<Self> {
        let (pages, weight) = (windows.pages(), windows.weight());
        let chunk = chunk_pages(strategy) as f64 / weight as f64;
        let guest = Counted::new(windows, scenario.start, scenario.zero_share, chunk)?;
        Self::of(Box::new(guest), pages, weight, scenario)
    }

    fn of(guest: Box<dyn Guest>, pages: u64, weight: u64, scenario: Scenario) -> Result<Self> {
        let line = Line::new(&scenario.link, scenario.costs.buffer)?;
        scenario.costs.validate()?;
        scenario.reads.validate()?;
        scenario.coding.map_or(Ok(()), |coding| coding.validate())?;
        if !(0.0..=1.0).contains(&scenario.zero_share) {
            return Err(Error::usage(format!("zero_share must be from 0 to 1, not {}", scenario.zero_share)));
        }
        Ok(Self {
            pages,
            weight,
            line,
            encoder: scenario.coding.map(|coding| Encoder::new(coding, pages)),
            guest,
            needs_pages: false,
            now: 0.0,
            scenario,
            sent: Sent::default(),
            paused_at: None,
            ahead: None,
            figures: Figures::default(),
            events: Vec::new(),
        })
    }

    /// Whether the run failed for want of a guest whose pages are followed.
    pub fn needs_pages(&self) -> bool {
        self.needs_pages
    }

    /// Its writes; an error where pages are only counted.
    fn writer(&mut self) -> Result<&mut Writer> {
        let Self { guest, needs_pages, .. } = self;
        guest.writer().ok_or_else(|| {
            *needs_pages = true;
            Error::usage("counted pages cannot be waited for one by one: simulate this without fast")
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
        match (&mut self.ahead, self.guest.writer()) {
            (Some(ahead), Some(writer)) => ahead.run(writer, self.now, until),
            _ => self.guest.run(self.now, until),
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
        self.sent.encoded_pages += sent.encoded_pages * self.weight;
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

    /// Zero pages among `runs` that are named instead of sent.
    fn named(&self, runs: &[Run]) -> Vec<Run> {
        if self.encoder.as_ref().is_some_and(|encoder| !encoder.names_zeros()) {
            return Vec::new();
        }
        self.guest.zeros(runs)
    }

    /// Bytes that `runs` take on the wire, and the zero pages among them.
    fn encode(&mut self, runs: &[Run]) -> Sent {
        let zeros = self.named(runs);
        let (pages, zero_pages) = (total(runs), total(&zeros));
        // A zero run cuts a run in two, at most.
        let others = self.guest.scattered(runs) + zeros.len() as u64;
        let named = wire::zeros_bytes(zeros.len() as u64);
        let (bytes, encoded_pages) = match &mut self.encoder {
            None => (wire::pages_bytes(others, pages - zero_pages), 0),
            Some(_) if pages == zero_pages => (0, 0),
            Some(encoder) => {
                let (bytes, shorter) = encoder.encode(&without(runs, &zeros));
                (wire::zeros_bytes(others) + bytes, shorter)
            }
        };
        Sent { bytes: (named + bytes) * self.weight, pages, zero_pages, encoded_pages, ..Sent::default() }
    }

    /// Puts what was encoded on the link: when the source can go on. Encoders and link work at the same time, so
    /// that the slower of them decides.
    fn dispatch(&mut self, sent: &Sent, live: bool) -> f64 {
        let carried = self.line.put(self.now, sent.bytes, live);
        let pages = (sent.pages - sent.zero_pages) * self.weight;
        self.encoder.as_ref().map_or(carried, |encoder| carried.max(self.now + encoder.seconds(pages)))
    }
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
        self.guest.begin();
        (self.figures.first_page, self.figures.last_page) = (self.now, self.now);
        Ok(())
    }

    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) -> Result<()> {
        self.pass(self.now + self.scenario.costs.scan_per_gib * self.gib())?;
        self.guest.sync(clear, dirty);
        Ok(())
    }

    fn send(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Result<()> {
        let runs = self.guest.prepare(chunk, spilled);
        let sent = self.encode(&runs);
        self.sent.skipped_pages += (chunk.pages() - sent.pages) * self.weight;
        let until = self.dispatch(&sent, self.paused_at.is_none());
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
        self.guest.pause();
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
        self.writer()?;
        self.move_execution()?;
        let latency = self.line.round_trip() + self.line.seconds(wire::pages_bytes(1, 1));
        let reader = Reader::new(self.scenario.reads, self.pages);
        self.ahead = Some(Ahead::new(missing.clone(), reader, latency, self.now));
        Ok(())
    }

    fn departed(&self) -> bool {
        self.ahead.is_some()
    }

    fn push(&mut self, runs: &[Run], asked: &mut Vec<u64>) -> Result<()> {
        let sent = self.encode(runs);
        let until = self.dispatch(&sent, false);
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
        Some((self.guest.time() * OPERATIONS) as u64)
    }

    fn progress_there(&mut self) -> Vec<Point> {
        self.ahead.as_mut().map(Ahead::progress).unwrap_or_default()
    }

    fn abandon(&mut self, _why: &str) {
        self.figures.total = self.now;
    }

    fn knows_pages(&self) -> bool {
        self.guest.follows()
    }

    fn reaction(&self) -> Duration {
        Duration::from_secs_f64(self.scenario.costs.reaction)
    }

    fn obey(&mut self, act: &Act) -> Result<()> {
        match *act {
            Act::Throttle { percent } => self.guest.throttle(percent),
            Act::Limit { bandwidth, dirty_rate, write_delay, .. } => {
                bandwidth.into_iter().for_each(|rate| self.line.limit(rate));
                let weight = self.weight as f64;
                let spacing = |rate| if rate > 0.0 { weight * PAGE as f64 / rate } else { 0.0 };
                if let Some(rate) = dirty_rate {
                    self.writer()?.brake().space(spacing(rate));
                }
                if let Some(held) = write_delay {
                    self.writer()?.brake().delay(held.max(0.0) * weight);
                }
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
            GuestCost { before: Some(OPERATIONS), slowdown: self.guest.slowdown(), ..GuestCost::default() };
        report.faults = self.ahead.as_ref().map(|ahead| ahead.faults(self.figures.total));
    }
}
