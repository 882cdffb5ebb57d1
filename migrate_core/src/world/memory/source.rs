//! The source: real memory, written by real threads, sent over real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination::boot_id;
use super::lane::{self, append, Counters, Job, Lane};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{monotonic_ns, Guest, GuestMemory, Progress, PAGE};
use crate::link::Stream;
use crate::policy::Act;
use crate::report::{BlackoutParts, Event, GuestCost, Happening, Report, TrackingTax};
use crate::strategy::{AtSend, Chunk};
use crate::track::{first_write_ns, Tracker};
use crate::wire::{checked_runs, Message, Reader, Section, MOST_PAGES};
use crate::world::{Sent, World};

/// Pages that keep to one channel: all versions of a page take the same one, so that they arrive in order.
const GROUP: u64 = 1 << 10;
/// Pings by which two machines' clocks are compared.
const PINGS: usize = 8;

/// How a source sends.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Name zero pages instead of sending them.
    pub find_zeros: bool,
    /// Compare all pages by checksum before letting go.
    pub verify: bool,
    /// How long the peer may make no progress before it counts as lost.
    pub stall: Duration,
    /// How long the guest runs, and is watched, before the migration starts.
    pub warm_up: Duration,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            find_zeros: true,
            verify: false,
            stall: Duration::from_secs(10),
            warm_up: Duration::from_millis(500),
        }
    }
}

/// The destination's clock as seen from here.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// Its nanoseconds less ours.
    ahead_ns: i128,
    /// How far off that may be, in seconds.
    error: f64,
}

/// The sending ends of a link, with their threads. Opening them can fail, so it comes before a guest is
/// taken from where it is.
pub struct Channels {
    lanes: Vec<Lane>,
    replies: Reader<Stream>,
    counters: Arc<Counters>,
}

impl Channels {
    /// For pages of `memory`, over `streams`, one a channel.
    pub fn open(memory: &Arc<GuestMemory>, streams: Vec<Stream>, sending: &Sending) -> Result<Self> {
        let Some(first) = streams.first() else {
            return Err(Error::usage("a migration needs at least one channel"));
        };
        let replies = Reader::new(first.try_clone()?, memory.pages());
        let counters = Arc::new(Counters::default());
        let lane = |stream: Stream| {
            stream.set_write_timeout(Some(sending.stall))?;
            stream.set_read_timeout(Some(sending.stall))?;
            Lane::new(stream, Arc::clone(memory), Arc::clone(&counters), sending.find_zeros)
        };
        let lanes = streams.into_iter().map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, replies, counters })
    }
}

/// The memory world at its source.
pub struct Source {
    guest: Guest,
    tracker: Box<dyn Tracker>,
    sending: Sending,
    lanes: Vec<Lane>,
    replies: Reader<Stream>,
    counters: Arc<Counters>,
    pace: Pace,
    clock: Clock,
    started: Instant,
    let_go: bool,
    events: Vec<Event>,
    skipped: u64,
    scanned_bytes: u64,
    /// Room for a look at the dirty log of a chunk.
    scratch: Bitmap,
    figures: Figures,
}

/// A look at a source's counters from any thread.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Counters>);

impl Gauge {
    /// What was put on the link so far.
    pub fn sent(&self) -> Sent {
        self.0.sent()
    }
}

/// What is told to the report at the end.
#[derive(Debug, Default)]
struct Figures {
    setup: f64,
    first_page: f64,
    last_page: f64,
    paused_at: Duration,
    parts: BlackoutParts,
    sender_pause: Option<f64>,
    guest_gap: Option<f64>,
    verify_time: f64,
    verified: Option<bool>,
    total: f64,
    first_write_ns: Option<f64>,
    scan_time: f64,
    before: Option<(Progress, Progress)>,
    during: Option<(Progress, Progress)>,
}

impl Source {
    /// A guest that is to leave over `streams`, one a channel.
    pub fn new(
        guest: Guest,
        tracker: Box<dyn Tracker>,
        streams: Vec<Stream>,
        sending: Sending,
    ) -> Result<Self> {
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
            replies: channels.replies,
            counters: channels.counters,
            pace: Pace::default(),
            clock: Clock::default(),
            started: Instant::now(),
            let_go: false,
            events: Vec::new(),
            skipped: 0,
            scanned_bytes: 0,
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

    /// The guest back, and whether it was let go: then it runs elsewhere and must not run here.
    pub fn into_guest(self) -> (Guest, bool) {
        (self.guest, self.let_go)
    }

    fn mark(&mut self, what: Happening) {
        let time = self.now().as_secs_f64();
        self.events.push(Event { time, what });
    }

    fn warm_up(&mut self) -> Result<()> {
        self.guest.resume()?;
        let before = self.guest.progress();
        std::thread::sleep(self.sending.warm_up);
        self.guest.check_alive()?;
        self.figures.before = Some((before, self.guest.progress()));
        Ok(())
    }

    fn greet(&mut self) -> Result<()> {
        let (layout, channels) = (self.guest.memory().layout(), self.lanes.len() as u32);
        let session = monotonic_ns() ^ u64::from(std::process::id()) << 40;
        for (channel, lane) in (0..).zip(&mut self.lanes) {
            let hello = Message::Hello { session, channel, channels, layout: layout.clone() };
            lane.send(Job::Message(hello))?;
        }
        match self.replies.message()? {
            Message::Welcome { boot_id: theirs } if theirs == boot_id() && !theirs.is_empty() => Ok(()),
            Message::Welcome { .. } => self.compare_clocks(),
            other => Err(Error::link(format!("the destination answered {} to hello", other.name()))),
        }
    }

    /// Takes the shortest of some round trips: half of it bounds the error.
    fn compare_clocks(&mut self) -> Result<()> {
        let mut best: Option<(u64, i128)> = None;
        for _ in 0..PINGS {
            let sent = monotonic_ns();
            self.tell(Message::Ping)?;
            let Message::Pong { clock_ns } = self.replies.message()? else {
                return Err(Error::link("the destination did not answer a ping with a pong"));
            };
            let trip = monotonic_ns() - sent;
            let ahead = i128::from(clock_ns) - i128::from(sent + trip / 2);
            best = best.filter(|(shortest, _)| *shortest <= trip).or(Some((trip, ahead)));
        }
        if let Some((trip, ahead_ns)) = best {
            self.clock = Clock { ahead_ns, error: trip as f64 / 2e9 };
        }
        Ok(())
    }

    fn tell(&mut self, message: Message) -> Result<()> {
        self.lanes[0].send(Job::Message(message))
    }

    fn scan(&mut self, pages: std::ops::Range<u64>, clear: bool, into: &mut Bitmap) -> Result<()> {
        let began = Instant::now();
        self.scanned_bytes += (pages.end - pages.start) * PAGE as u64;
        // Only a guest that runs needs to be stopped around a tracker that reads and clears in two steps.
        let stop = clear && self.tracker.needs_pause() && self.figures.paused_at.is_zero();
        if stop {
            self.guest.pause();
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
        for (group, runs) in by_group(runs, self.lanes.len() as u64) {
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

    /// Sends the execution state and waits for the destination's acknowledgement.
    fn hand_over(&mut self) -> Result<()> {
        let state = self.guest.save()?;
        self.tell(Message::State { state })?;
        for lane in &mut self.lanes {
            lane.send(Job::Message(Message::Flush))?;
        }
        loop {
            match self.replies.message()? {
                Message::Loaded => return Ok(()),
                Message::Resend { runs } => {
                    let runs = checked_runs(&runs, self.pages())?;
                    self.mark(Happening::Resent { pages: runs.iter().map(|run| run.pages).sum() });
                    // All channels are flushed: one is enough, and order holds.
                    for piece in pieces(&runs) {
                        self.lanes[0].send(Job::Pages(vec![piece]))?;
                    }
                    self.tell(Message::Flush)?;
                }
                other => {
                    return Err(Error::link(format!(
                        "the destination answered {} to the execution state",
                        other.name()
                    )))
                }
            }
        }
    }

    /// Compares every page with the destination's, by XXH3-128.
    fn verify(&mut self) -> Result<()> {
        self.tell(Message::Verify)?;
        let (mut next, memory, mut wrong) = (0, Arc::clone(self.guest.memory()), Bitmap::new(self.pages()));
        while next < memory.pages() {
            match self.replies.section()? {
                Section::Hashes { run, hashes } if run.first == next => {
                    let differing =
                        run.range().zip(hashes).filter(|(page, hash)| memory.hash_page_128(*page) != *hash);
                    differing.for_each(|(page, _)| wrong.set(page));
                    next = run.end();
                }
                other => {
                    return Err(Error::link(format!(
                        "checksums from page {next} were expected, not {other:?}"
                    )))
                }
            }
        }
        self.figures.verified = Some(wrong.is_empty());
        match wrong.first_from(0) {
            None => Ok(()),
            Some(page) => Err(Error::Verification(format!(
                "{} pages differ between source and destination, the first is page {page}; the guest stays at the source",
                wrong.count()
            ))),
        }
    }

    /// Lets go, and waits for the word that the guest runs.
    fn let_go(&mut self) -> Result<()> {
        lane::settle(&mut self.lanes)?;
        self.let_go = true;
        let told = self.tell(Message::Go).and_then(|()| self.replies.message());
        match told {
            Ok(Message::Running { first_ran_ns }) => {
                let gap = i128::from(first_ran_ns)
                    - self.clock.ahead_ns
                    - i128::from(self.guest.progress().last_ran_ns);
                self.figures.guest_gap = Some(gap as f64 / 1e9 - self.figures.verify_time);
                Ok(())
            }
            Ok(other) => Err(after_letting_go(&format!("it answered {}", other.name()))),
            Err(error) => Err(after_letting_go(&error.to_string())),
        }
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

    fn phase(&self, since: Duration) -> f64 {
        self.now().saturating_sub(since).as_secs_f64()
    }
}

fn after_letting_go(why: &str) -> Error {
    Error::link(format!(
        "the destination had acknowledged the guest and was told to run it, then {why}; \
         it may run there, so the guest stays stopped at the source"
    ))
}

/// Cuts runs so that each piece fits a section.
fn pieces(runs: &[Run]) -> impl Iterator<Item = Run> + '_ {
    runs.iter().flat_map(|run| {
        let firsts = run.range().step_by(MOST_PAGES as usize);
        firsts.map(|first| Run { first, pages: MOST_PAGES.min(run.end() - first) })
    })
}

/// Sorts runs by the channel that their pages keep to.
fn by_group(runs: &[Run], channels: u64) -> Vec<(u64, Vec<Run>)> {
    if channels == 1 {
        return if runs.is_empty() { Vec::new() } else { vec![(0, runs.to_vec())] };
    }
    let mut groups: Vec<(u64, Vec<Run>)> = Vec::new();
    for run in runs {
        let mut first = run.first;
        while first < run.end() {
            let end = run.end().min((first / GROUP + 1) * GROUP);
            let (channel, piece) = (first / GROUP % channels, Run { first, pages: end - first });
            match groups.last_mut() {
                Some((last, pieces)) if *last == channel => pieces.push(piece),
                _ => groups.push((channel, vec![piece])),
            }
            first = end;
        }
    }
    groups
}

/// Keeps the bytes sent under a rate that a policy set.
#[derive(Debug, Default)]
struct Pace {
    limit: Option<(f64, Instant, u64)>,
}

impl Pace {
    fn set(&mut self, rate: f64, sent: u64) {
        self.limit = (rate > 0.0).then(|| (rate, Instant::now(), sent));
    }

    /// How long to wait before more may be sent.
    fn ahead(&self, sent: u64) -> Duration {
        self.limit.map_or(Duration::ZERO, |(rate, since, before)| {
            Duration::from_secs_f64((sent - before) as f64 / rate).saturating_sub(since.elapsed())
        })
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
        self.started = Instant::now();
        let ready = self.greet().and_then(|()| self.tracker.arm(&Arc::clone(self.guest.memory())));
        ready.map_err(|error| self.with_peers_reason(error))?;
        self.figures.setup = self.phase(Duration::ZERO);
        self.figures.first_page = self.figures.setup;
        let now = self.guest.progress();
        self.figures.during = Some((now, now));
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
            std::thread::sleep(self.pace.ahead(self.counters.sent().bytes));
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
        self.hand_over().map_err(|error| self.with_peers_reason(error))?;
        self.mark(Happening::Acknowledged);
        self.figures.parts.acknowledge = self.phase(copied);
        if self.sending.verify {
            let began = self.now();
            self.verify()?;
            self.figures.verify_time = self.phase(began);
        }
        let began = self.now();
        self.let_go()?;
        self.mark(Happening::Resumed);
        self.figures.parts.resume = self.phase(began);
        self.figures.sender_pause = Some(self.phase(paused) - self.figures.verify_time);
        self.figures.total = self.phase(Duration::ZERO);
        self.tracker.disarm();
        Ok(())
    }

    fn abandon(&mut self, why: &str) {
        self.figures.total = self.phase(Duration::ZERO);
        self.tracker.disarm();
        if self.let_go {
            return;
        }
        // The destination may be gone already; then there is nobody to tell.
        let _ = self.tell(Message::Failed { reason: why.to_owned() });
        self.lanes.iter_mut().for_each(|lane| drop(lane.close()));
        let _ = self.replies.stream().shutdown(std::net::Shutdown::Both);
        // A guest that cannot be resumed has crashed, which its own check reports.
        let _ = self.guest.resume();
    }

    fn obey(&mut self, act: &Act) -> Result<()> {
        let cannot = |what: &str| {
            let reason = format!("asked to {what}, which the memory world cannot do to its writers yet");
            Err(Error::Policy { reason, source: None })
        };
        match act {
            Act::Throttle { .. } => cannot("throttle"),
            Act::Limit { dirty_rate: Some(_), .. } => cannot("limit the rate of writing"),
            Act::Limit { write_delay: Some(_), .. } => cannot("delay first writes"),
            Act::Limit { bandwidth: Some(rate), .. } => {
                self.pace.set(*rate, self.counters.sent().bytes);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn report(&mut self, report: &mut Report) {
        let figures = &self.figures;
        let sending = figures.last_page - figures.first_page;
        report.world = "memory".into();
        report.memory_bytes = self.guest.memory().bytes();
        (report.total_time, report.setup_time) = (figures.total - figures.verify_time, figures.setup);
        report.blackout_parts = figures.parts.clone();
        (report.blackout, report.guest_gap) = (figures.guest_gap, figures.guest_gap);
        report.guest_gap_error = figures.guest_gap.map(|_| self.clock.error);
        report.sender_pause = figures.sender_pause;
        (report.verify_time, report.verified) = (figures.verify_time, figures.verified);
        report.throughput = if sending > 0.0 { report.sent_bytes as f64 / sending } else { 0.0 };
        report.guest_cost = guest_cost(figures.before, figures.during);
        report.tracking = TrackingTax {
            tracker: self.tracker.name().into(),
            first_write_ns: figures.first_write_ns,
            scan_us_per_gib: (self.scanned_bytes > 0)
                .then(|| figures.scan_time * 1e6 / (self.scanned_bytes as f64 / (1u64 << 30) as f64)),
            scan_time: figures.scan_time,
        };
    }
}

/// Operations a second between two looks at a guest that ran in between.
fn per_second(span: Option<(Progress, Progress)>, count: impl Fn(&Progress) -> u64) -> Option<f64> {
    let (from, to) = span?;
    let seconds = to.running_ns.saturating_sub(from.running_ns) as f64 / 1e9;
    (seconds > 0.0).then(|| (count(&to) - count(&from)) as f64 / seconds)
}

fn guest_cost(before: Option<(Progress, Progress)>, during: Option<(Progress, Progress)>) -> GuestCost {
    let (rate_before, rate_during) =
        (per_second(before, |p| p.operations), per_second(during, |p| p.operations));
    let slowdown = rate_before.zip(rate_during).filter(|(b, _)| *b > 0.0).map(|(b, d)| 1.0 - d / b);
    GuestCost {
        before: rate_before,
        during: rate_during,
        after: None,
        slowdown,
        write_rate: per_second(before, |p| p.written),
    }
}
