//! The source: real memory, written by real threads, sent over real sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::brakes::Brakes;
use super::channels::{by_batch, by_group};
use super::cut::{Cut, Cutter};
use super::figures::Figures;
use super::greeting::Clock;
use super::lane::{self, append, Counters, Job, Lane};
use super::pace::Pace;
use super::post_copy::Ahead;
use super::{Channels, Gauge};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{monotonic_ns, Guest, PAGE};
use crate::knobs::Spec;
use crate::link::Stream;
use crate::policy::Act;
use crate::report::{Event, Happening, Point, Report};
use crate::strategy::{AtSend, Chunk, Departure};
use crate::track::{first_write_ns, refuse_blind, Tracker};
use crate::wire::{Message, Reader};
use crate::world::{Sent, World};

/// How a source sends.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Name zero pages instead of sending them.
    pub find_zeros: bool,
    /// How the other pages are encoded; `raw` leaves them as they are.
    pub codec: Spec,
    /// Compare all pages by checksum before letting go.
    pub verify: bool,
    /// How long the peer may make no progress before it counts as lost.
    pub stall: Duration,
    /// How long the guest runs, and is watched, before the migration starts.
    pub warm_up: Duration,
    /// Whether the strategy moves execution ahead of memory: what its `departure()` says.
    pub departure: Departure,
    /// Send what the guest asks for behind the pushed pages, over the first channel, instead of over a
    /// channel of its own: what that costs is an experiment.
    pub one_stream: bool,
    /// How long the guest is watched at the destination once it runs there; no part of the total time.
    pub cool_down: Duration,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            find_zeros: true,
            codec: Spec::new("raw"),
            verify: false,
            stall: Duration::from_secs(10),
            warm_up: Duration::from_millis(500),
            departure: Departure::Never,
            one_stream: false,
            cool_down: Duration::ZERO,
        }
    }
}

impl Sending {
    /// The same with pages encoded by `codec`: `raw` sends zero pages too, `zero` names them, and so do all others.
    #[must_use]
    pub fn with_codec(self, codec: &Spec) -> Self {
        let find_zeros = codec.name != "raw";
        let codec = if codec.name == "zero" { Spec::new("raw") } else { codec.clone() };
        Self { find_zeros, codec, ..self }
    }

    /// The codec, if pages are encoded at all.
    pub(super) fn codec(&self) -> Option<&Spec> {
        Some(&self.codec).filter(|codec| codec.name != "raw")
    }
}

/// The memory world at its source.
pub struct Source {
    pub(super) guest: Guest,
    pub(super) tracker: Box<dyn Tracker>,
    pub(super) sending: Sending,
    pub(super) lanes: Vec<Lane>,
    pub(super) ends: Vec<Stream>,
    pub(super) fault_channel: Option<Stream>,
    pub(super) session: u64,
    pub(super) ahead: Ahead,
    pub(super) replies: Reader<Stream>,
    pub(super) counters: Arc<Counters>,
    pub(super) pace: Pace,
    pub(super) clock: Clock,
    pub(super) brakes: Brakes,
    pub(super) cut: Arc<Cut>,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) started: Instant,
    /// The same on the clock that processes share.
    pub(super) started_ns: u64,
    pub(super) let_go: bool,
    pub(super) events: Vec<Event>,
    pub(super) skipped: u64,
    /// Room for a look at the dirty log of a chunk.
    pub(super) scratch: Bitmap,
    pub(super) figures: Figures,
}

impl Source {
    /// A guest that is to leave over `streams`, one a channel. Refused with a tracker that cannot see its writes.
    pub fn new(
        guest: Guest,
        tracker: Box<dyn Tracker>,
        streams: Vec<Stream>,
        sending: Sending,
    ) -> Result<Self> {
        refuse_blind(tracker.as_ref(), guest.memory())?;
        let channels = Channels::open(guest.memory(), streams, &sending)?;
        Ok(Self::over(channels, guest, tracker, sending))
    }

    /// A guest that is to leave over `channels`, which were opened for its memory.
    pub fn over(channels: Channels, guest: Guest, tracker: Box<dyn Tracker>, sending: Sending) -> Self {
        let scratch = Bitmap::new(guest.memory().pages());
        Self {
            guest,
            tracker,
            sending,
            lanes: channels.lanes,
            ends: channels.ends,
            fault_channel: channels.faults,
            session: 0,
            ahead: Ahead::default(),
            replies: channels.replies,
            counters: channels.counters,
            pace: Pace::default(),
            clock: Clock::default(),
            brakes: Brakes::default(),
            cut: channels.cut,
            cancelled: Arc::default(),
            started: Instant::now(),
            started_ns: monotonic_ns(),
            let_go: false,
            events: Vec::new(),
            skipped: 0,
            scratch,
            figures: Figures::default(),
        }
    }

    /// The guest: running where it was, or paused for good once it was let go.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Reads what has been sent while another thread runs the migration.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.counters))
    }

    /// Cuts the connections of a cancelled run from another thread.
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::downgrade(&self.cut))
    }

    /// The guest back, and whether it was let go: then it runs elsewhere and must not run here.
    pub fn into_guest(self) -> (Guest, bool) {
        (self.guest, self.let_go)
    }

    pub(super) fn mark(&mut self, what: Happening) {
        let time = self.now().as_secs_f64();
        self.events.push(Event { time, what });
    }

    fn warm_up(&mut self) -> Result<()> {
        self.guest.resume()?;
        let before = self.guest.progress();
        self.rest(self.sending.warm_up);
        self.guest.check_alive()?;
        self.figures.before = Some((before, self.guest.progress()));
        Ok(())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Sleeps, but not on when the run has been cancelled.
    fn rest(&self, time: Duration) {
        let began = Instant::now();
        while let Some(left) = time.checked_sub(began.elapsed()).filter(|_| !self.is_cancelled()) {
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    pub(super) fn tell(&mut self, message: Message) -> Result<()> {
        self.lanes[0].send(Job::Message(message))
    }

    fn scan(&mut self, pages: std::ops::Range<u64>, clear: bool, into: &mut Bitmap) -> Result<()> {
        let began = Instant::now();
        self.figures.scanned_bytes += (pages.end - pages.start) * PAGE as u64;
        // Only a guest that runs needs to be stopped around a tracker that reads and clears in two steps.
        let stop = clear && self.tracker.needs_pause() && self.figures.paused_at.is_zero();
        if stop {
            self.guest.pause();
        }
        if clear {
            self.guest.memory().harvested(pages.clone());
        }
        let scanned = match clear {
            true => self.tracker.harvest(pages, into),
            false => self.tracker.peek(pages, into),
        };
        if stop {
            self.guest.resume()?;
        }
        self.figures.scan_time += began.elapsed().as_secs_f64();
        scanned
    }

    /// What of `chunk` is to be sent, after its dirty bits have been seen to.
    fn prepare(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Result<Vec<Run>> {
        match chunk.at_send {
            AtSend::Keep => Ok(chunk.runs.clone()),
            AtSend::Clear => {
                self.scan(chunk.span(), true, spilled)?;
                chunk.runs.iter().for_each(|run| spilled.clear_range(run.range()));
                Ok(chunk.runs.clone())
            }
            AtSend::SkipDirty => {
                let mut dirty = std::mem::replace(&mut self.scratch, Bitmap::new(0));
                dirty.clear_all();
                let looked = self.scan(chunk.span(), false, &mut dirty);
                let mut clean = Vec::new();
                let pages = chunk.runs.iter().flat_map(Run::range).filter(|page| !dirty.contains(*page));
                pages.for_each(|page| append(&mut clean, page));
                self.scratch = dirty;
                looked?;
                Ok(clean)
            }
        }
    }

    fn dispatch(&mut self, runs: &[Run]) -> Result<()> {
        let split = if self.sending.codec().is_some() { by_batch } else { by_group };
        for (group, runs) in split(runs, self.lanes.len() as u64) {
            let job = if self.tracker.wants_sent() { self.copy(runs) } else { Job::Pages(runs) };
            self.lanes[group as usize].send(job)?;
        }
        Ok(())
    }

    /// Copies pages, so that the tracker is told of the very bytes that are sent.
    fn copy(&mut self, runs: Vec<Run>) -> Job {
        let mut contents =
            Vec::with_capacity(runs.iter().map(|run| run.pages as usize).sum::<usize>() * PAGE);
        for page in runs.iter().flat_map(Run::range) {
            let mut bytes = [0; PAGE];
            self.guest.memory().read_page(page, &mut bytes);
            self.tracker.sent(page, &bytes);
            contents.extend(bytes);
        }
        Job::Copied(runs, contents)
    }

    /// What the peer said before it closed, if it said why; else `error`.
    fn with_peers_reason(&mut self, error: Error) -> Error {
        if !matches!(error, Error::Link { .. }) || error.to_string().contains("gave up") {
            return error;
        }
        let _ = self.replies.stream().set_read_timeout(Some(Duration::from_millis(200)));
        match self.replies.message() {
            Err(reason) if reason.to_string().contains("gave up") => reason,
            _ => error,
        }
    }

    /// After an error, ends all channels: the guest is ahead of its memory, and both sides must know.
    fn or_cut(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.cut();
        }
        result
    }

    pub(super) fn phase(&self, since: Duration) -> f64 {
        self.now().saturating_sub(since).as_secs_f64()
    }
}

impl World for Source {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn pages(&self) -> u64 {
        self.guest.memory().pages()
    }

    fn begin(&mut self) -> Result<()> {
        // A tracker that cannot be had on scratch memory (KVM's) has no figure.
        self.figures.first_write_ns = first_write_ns(self.tracker.name()).ok();
        self.warm_up()?;
        (self.started, self.started_ns) = (Instant::now(), monotonic_ns());
        let ready = self.greet().and_then(|()| self.tracker.arm(&Arc::clone(self.guest.memory())));
        ready.map_err(|error| self.with_peers_reason(error))?;
        self.figures.setup = self.phase(Duration::ZERO);
        self.figures.first_page = self.figures.setup;
        let now = self.guest.progress();
        self.figures.during = Some((now, now));
        self.figures.vcpus = self.guest.vcpus().len();
        Ok(())
    }

    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) -> Result<()> {
        self.scan(0..self.pages(), clear, dirty)
    }

    fn send(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Result<()> {
        self.guest.check_alive()?;
        let runs = self.prepare(chunk, spilled)?;
        self.skipped += chunk.pages() - runs.iter().map(|run| run.pages).sum::<u64>();
        if self.figures.paused_at.is_zero() {
            self.rest(self.pace.ahead(self.counters.sent().bytes));
            self.brakes.regulate(&self.guest, self.started.elapsed());
        }
        self.dispatch(&runs).map_err(|error| self.with_peers_reason(error))
    }

    fn settle(&mut self) -> Result<Sent> {
        lane::settle(&mut self.lanes).map_err(|error| self.with_peers_reason(error))?;
        self.figures.last_page = self.phase(Duration::ZERO);
        Ok(self.sent())
    }

    fn sent(&self) -> Sent {
        Sent { skipped_pages: self.skipped, ..self.counters.sent() }
    }

    fn wait(&mut self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        let asked = self.now();
        if let Some((_, during)) = &mut self.figures.during {
            *during = self.guest.progress();
        }
        self.guest.pause();
        self.figures.paused_at = asked;
        self.figures.parts.stop = self.phase(asked);
        self.mark(Happening::Paused);
        self.guest.check_alive()
    }

    fn switch_over(&mut self) -> Result<()> {
        let (paused, copied) = (self.figures.paused_at, self.now());
        self.figures.parts.last_pages = self.phase(paused) - self.figures.parts.stop;
        self.hand_over(None).map_err(|error| self.with_peers_reason(error))?;
        self.mark(Happening::Acknowledged);
        self.figures.parts.acknowledge = self.phase(copied);
        if self.sending.verify {
            let began = self.now();
            self.verify(&Bitmap::full(self.pages()), "the guest stays at the source")?;
            self.figures.verify_time = self.phase(began);
        }
        let began = self.now();
        self.let_go()?;
        self.mark(Happening::Resumed);
        self.figures.parts.resume = self.phase(began);
        self.figures.sender_pause = Some(self.phase(paused) - self.figures.verify_time);
        self.figures.total = self.phase(Duration::ZERO);
        self.tracker.disarm();
        self.brakes.release(&self.guest);
        Ok(())
    }

    fn depart(&mut self, missing: &Bitmap) -> Result<()> {
        let moved = self.move_ahead(missing);
        match self.let_go {
            true => self.or_cut(moved),
            false => moved.map_err(|error| self.with_peers_reason(error)),
        }
    }

    fn departed(&self) -> bool {
        self.let_go && self.ahead.has_begun()
    }

    fn push(&mut self, runs: &[Run], asked: &mut Vec<u64>) -> Result<()> {
        let pushed = self.push_pages(runs, asked);
        self.or_cut(pushed)
    }

    fn serve(&mut self, asked: &mut Vec<u64>) -> Result<()> {
        let served = self.serve_faults(asked);
        self.or_cut(served)
    }

    fn complete(&mut self) -> Result<()> {
        let finished = self.finish_ahead();
        self.or_cut(finished)
    }

    fn abandon(&mut self, why: &str) {
        self.figures.total = self.phase(Duration::ZERO);
        self.tracker.disarm();
        if let Some((_, during)) = self.figures.during.as_mut().filter(|_| self.figures.paused_at.is_zero()) {
            *during = self.guest.progress();
        }
        self.brakes.release(&self.guest);
        if self.let_go {
            return self.cut();
        }
        // The destination may be gone already; then there is nobody to tell.
        let _ = self.tell(Message::Failed { reason: why.to_owned() });
        self.lanes.iter_mut().for_each(|lane| drop(lane.close()));
        let _ = self.replies.stream().shutdown(std::net::Shutdown::Both);
        // A guest that cannot be resumed has crashed, which its own check reports.
        let _ = self.guest.resume();
    }

    fn obey(&mut self, act: &Act) -> Result<()> {
        if let Act::Limit { bandwidth: Some(rate), .. } = act {
            self.pace.set(*rate, self.counters.sent().bytes);
        }
        self.brakes.obey(act, &self.guest, self.started.elapsed())
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn report(&mut self, report: &mut Report) {
        report.world = "memory".into();
        report.memory_bytes = self.guest.memory().bytes();
        report.guest_gap_error = self.figures.guest_gap.map(|_| self.clock.error);
        report.tracking.tracker = self.tracker.name().into();
        report.faults = self.ahead.faults.as_deref().cloned();
        report.coding = self.coding();
        self.figures.report(report);
    }

    fn watch_for(&mut self, cancelled: &Arc<AtomicBool>) {
        self.cancelled = Arc::clone(cancelled);
    }

    fn has_let_go(&self) -> bool {
        self.let_go
    }

    fn operations(&self) -> Option<u64> {
        Some(self.guest.progress().operations)
    }

    fn progress_there(&mut self) -> Vec<Point> {
        self.seen_there()
    }
}
