//! A guest that arrives ahead of its memory.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::super::destination::{first_tick, gather, Gathered, Reception};
use super::super::observe::watch_for;
use super::fault_lane::FaultLane;
use super::landing::{Content, Landing, PIECE};
use super::log::By;
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{Guest, PAGE};
use crate::link::Stream;
use crate::wire::{Message, PageSet, Reader, Section, Writer, MOST_PAGES};

type Input = Reader<Stream>;

/// Gives the next stream that a source connects, waiting for at most so long.
pub(in super::super) type More<'a> = &'a mut dyn FnMut(Duration) -> Result<Stream>;

/// A guest ahead of its memory.
pub(in super::super) struct Arrival<'a> {
    landing: Landing,
    guest: Guest,
    session: u64,
    running: bool,
    /// How long the source wants the guest watched afterwards.
    watch: Duration,
    reception: &'a Reception,
}

/// The channels of one link: the first, the others that carry pages, and that of faults.
pub(in super::super) struct Lanes {
    main: Input,
    others: Vec<Input>,
    faults: Input,
}

impl Lanes {
    /// Out of inputs in the channels' order.
    pub(in super::super) fn new(main: Input, others: Vec<Input>, faults: Input) -> Self {
        Self { main, others, faults }
    }

    /// Other handles on all streams, to end them from any thread.
    fn handles(&self) -> Result<Vec<Stream>> {
        let inputs = [&self.main, &self.faults].into_iter().chain(&self.others);
        inputs.map(|input| input.stream().try_clone()).collect()
    }
}

/// Why a link is no longer used.
enum Ended {
    /// The source is free.
    Freed,
    /// It was lost.
    Lost(Error),
}

impl<'a> Arrival<'a> {
    /// Watches the memory of a guest that is not running, and throws `missing` away.
    pub(in super::super) fn new(
        guest: Guest,
        missing: Bitmap,
        verify: bool,
        session: u64,
        reception: &'a Reception,
    ) -> Result<Self> {
        let landing = Landing::new(guest.memory(), missing, verify)?;
        Ok(Self { landing, guest, session, running: false, watch: Duration::ZERO, reception })
    }

    /// Acknowledges, runs the guest when it is told to, and returns when all of its memory is there. A lost
    /// link is waited for as long as the reception says. An error means that the guest is lost, or, if it
    /// was not told to run, that nothing of it is left.
    pub(in super::super) fn run(
        mut self,
        mut lanes: Lanes,
        output: &mut Writer<Stream>,
        more: More<'_>,
    ) -> Result<(Guest, u64)> {
        output.message(&Message::Loaded)?;
        loop {
            match self.follow(lanes, output) {
                Ended::Freed => break,
                Ended::Lost(error) if !is_of_link(&error) => return Err(self.give_up(error)),
                // Nothing to lose: the source may not have heard that all is here, so it may ask again.
                Ended::Lost(error) => match self.recover(&error, output, more) {
                    Ok(found) => lanes = found,
                    Err(_) if self.landing.is_done() && self.running => break,
                    Err(error) => return Err(self.give_up(error)),
                },
            }
        }
        let Self { landing, guest, watch, .. } = self;
        let pages = landing.missing().count();
        drop(landing);
        watch_for(&guest, watch, output);
        Ok((guest, pages))
    }

    /// Uses one link until the source is free or it is lost. No thread is left when it returns.
    fn follow(&mut self, lanes: Lanes, output: &mut Writer<Stream>) -> Ended {
        let handles = match lanes.handles() {
            Ok(handles) => handles,
            Err(error) => return Ended::Lost(error),
        };
        let Self { landing, guest, running, watch, reception, .. } = self;
        let Lanes { mut main, others, faults } = lanes;
        let (landing, reception, handles, tally) = (&*landing, *reception, &handles, guest.tally());
        let freed = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut spawned = spawn(scope, "faults", handles, freed, move || {
                FaultLane::new(landing, tally, faults, reception.stall)?.run()
            })
            .map(|thread| threads.push(thread));
            for mut input in others {
                let body = move || {
                    // As for the first channel: it may be idle for long.
                    input.stream().set_read_timeout(None)?;
                    Err(stray(&next_message(&mut input, landing)?))
                };
                spawned =
                    spawned.and(spawn(scope, "receiver", handles, freed, body).map(|t| threads.push(t)));
            }
            let result = spawned.and_then(|()| {
                let mut talk =
                    Talk { input: &mut main, output, landing, guest, running, watch, freed, reception };
                talk.until_freed()
            });
            // A source that is free still listens to the first: to how the guest fares.
            cut(&handles[usize::from(result.is_ok())..]);
            let others = threads.into_iter().filter_map(|thread| thread.join().ok()?.err());
            match (result, others.min_by_key(is_echo)) {
                (Ok(()), _) => Ended::Freed,
                // What the first to fail says; the others were cut off by it.
                (Err(error), Some(first)) if is_echo(&error) => Ended::Lost(first),
                (Err(error), _) => Ended::Lost(error),
            }
        })
    }

    /// Waits for the source to connect again.
    fn recover(&mut self, why: &Error, output: &mut Writer<Stream>, more: More<'_>) -> Result<Lanes> {
        self.landing.log().lost();
        let window = match self.running && !self.landing.is_done() {
            true => self.reception.recovery,
            false => self.reception.stall,
        };
        let began = Instant::now();
        loop {
            let left = window.saturating_sub(began.elapsed());
            let stream = more(left)
                .map_err(|error| Error::link(format!("{why}; the source did not come back: {error}")))?;
            match self.regreet(stream, output, more) {
                Ok(Some(lanes)) => {
                    self.landing.log().back();
                    return Ok(lanes);
                }
                Ok(None) => return Err(Error::link(format!("{why}; the source began anew"))),
                // Whoever that was, it was not our source, or it was lost again.
                Err(_) if began.elapsed() < window => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Greets who connected; `None` if it begins another migration and this one has nothing to lose.
    fn regreet(&self, first: Stream, output: &mut Writer<Stream>, more: More<'_>) -> Result<Option<Lanes>> {
        let mut answer = Writer::new(first.try_clone()?);
        let Gathered { inputs, session, post_copy, .. } = gather(first, more, self.reception.stall)?;
        if session != self.session || !post_copy.is_some_and(|post_copy| post_copy.resume) {
            let reason = "the receiver waits for the memory of another guest".to_owned();
            let _ = answer.message(&Message::Failed { reason });
            return if self.running { Err(Error::link("another source came")) } else { Ok(None) };
        }
        let pages = PageSet::of(&self.landing.lacking()?);
        answer.message(&Message::Lacking { pages, running: self.running })?;
        *output = answer;
        let mut inputs = inputs.into_iter();
        match (inputs.next(), inputs.next_back()) {
            (Some(main), Some(faults)) => Ok(Some(Lanes::new(main, inputs.collect(), faults))),
            _ => Err(Error::link("a source that resumes needs a channel for pages and one for faults")),
        }
    }

    /// Ends a guest whose memory will not come: its threads wait in the kernel and must be let go first.
    fn give_up(self, error: Error) -> Error {
        let Self { landing, guest, running, .. } = self;
        guest.vcpus().iter().for_each(crate::guest::Vcpu::ask_pause);
        drop(landing);
        match running {
            true => {
                Error::link(format!("{error}; the guest ran here without all of its memory, and is lost"))
            }
            false => error,
        }
    }
}

/// Whether another link can help.
fn is_of_link(error: &Error) -> bool {
    matches!(error, Error::Link { .. } | Error::Stream { .. })
}

/// Whether an error says no more than that the connection was ended, maybe by ourselves.
fn is_echo(error: &Error) -> bool {
    error.to_string().contains("closed the connection")
}

fn stray(message: &Message) -> Error {
    Error::link(format!("{} came over a channel for pages", message.name()))
}

fn cut(handles: &[Stream]) {
    for handle in handles {
        // One that is closed already needs no closing.
        let _ = handle.shutdown(Shutdown::Both);
    }
}

/// A thread that ends all channels when it ends, unless the source is free.
fn spawn<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    handles: &'env [Stream],
    freed: &'env AtomicBool,
    body: impl FnOnce() -> Result<()> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<()>>> {
    let body = move || {
        let result = body();
        if !freed.load(SeqCst) {
            cut(handles);
        }
        result
    };
    let thread = Builder::new().name(name.into()).spawn_scoped(scope, body);
    thread.map_err(|source| Error::System { what: "starting a receiver's thread".into(), source })
}

/// The destination's side of the first channel.
struct Talk<'a> {
    input: &'a mut Input,
    output: &'a mut Writer<Stream>,
    landing: &'a Landing,
    guest: &'a mut Guest,
    running: &'a mut bool,
    watch: &'a mut Duration,
    freed: &'a AtomicBool,
    reception: &'a Reception,
}

impl Talk<'_> {
    fn until_freed(&mut self) -> Result<()> {
        // Pages may be few and far between: the channel of faults is the one that notices silence.
        self.input.stream().set_read_timeout(None)?;
        loop {
            match next_message(self.input, self.landing)? {
                Message::Verify => self.tell_hashes()?,
                Message::Go => self.go()?,
                Message::Observe { for_ns } => *self.watch = Duration::from_nanos(for_ns),
                Message::Freed => {
                    self.freed.store(true, SeqCst);
                    return Ok(());
                }
                other => return Err(Error::link(format!("{} came in post-copy", other.name()))),
            }
        }
    }

    fn go(&mut self) -> Result<()> {
        if !*self.running {
            // From here on the guest is ours, whatever happens to the link.
            *self.running = true;
            self.landing.log().begin();
            self.guest.resume()?;
        }
        let first_ran_ns = first_tick(self.guest, self.reception.stall)?;
        self.output.message(&Message::Running { first_ran_ns })
    }

    /// Before the guest runs: of what came before; afterwards: of what came since, as it was placed.
    fn tell_hashes(&mut self) -> Result<()> {
        let (memory, missing) = (self.guest.memory(), self.landing.missing());
        let mut present = Bitmap::full(missing.pages());
        present.subtract(missing);
        let told = if *self.running { missing } else { &present };
        for run in told.runs() {
            for first in run.range().step_by(MOST_PAGES as usize) {
                let piece = Run { first, pages: MOST_PAGES.min(run.end() - first) };
                match (*self.running, self.landing.hashes(piece)) {
                    (false, _) => self.output.hashes(memory, piece)?,
                    (true, Some(hashes)) => self.output.told_hashes(piece, &hashes)?,
                    (true, None) => return Err(Error::link("checksums were not asked for in time")),
                }
            }
        }
        Ok(())
    }
}

/// Places what was pushed until a message comes.
fn next_message(input: &mut Input, landing: &Landing) -> Result<Message> {
    let mut buffer = Vec::new();
    loop {
        match input.section()? {
            Section::Message(Message::Failed { reason }) => {
                return Err(Error::link(format!("the source gave up: {reason}")))
            }
            Section::Message(message) => return Ok(message),
            pages => take_pages(input, pages, landing, By::Push, &mut buffer)?,
        }
    }
}

/// Takes the pages of a section in and places them, some at a time. Nothing writes to them at the source, so
/// a checksum that does not match is damage.
pub(super) fn take_pages(
    input: &mut Input,
    section: Section,
    landing: &Landing,
    by: By,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    landing.log().bytes(by, input.section_bytes());
    match section {
        Section::Zeros { runs } => {
            for piece in runs.iter().flat_map(pieces) {
                landing.land(piece, Content::Zeros, by, Instant::now())?;
            }
        }
        Section::Pages { runs, hashes } => {
            let mut hashes = hashes.as_slice();
            for piece in runs.iter().flat_map(pieces) {
                let (these, rest) = hashes.split_at(piece.pages as usize);
                hashes = rest;
                buffer.resize(piece.pages as usize * PAGE, 0);
                input.read_contents(buffer)?;
                let here = Instant::now();
                check(input, piece, buffer, these)?;
                landing.log().bytes(by, buffer.len() as u64);
                landing.land(piece, Content::Bytes(buffer), by, here)?;
            }
        }
        other => return Err(Error::link(format!("{other:?} came where pages were expected"))),
    }
    Ok(())
}

fn pieces(run: &Run) -> impl Iterator<Item = Run> {
    let (end, firsts) = (run.end(), run.range().step_by(PIECE as usize));
    firsts.map(move |first| Run { first, pages: PIECE.min(end - first) })
}

fn check(input: &Input, piece: Run, bytes: &[u8], hashes: &[u64]) -> Result<()> {
    let wrong = bytes.chunks_exact(PAGE).zip(hashes).position(|(page, hash)| xxh3_64(page) != *hash);
    match wrong {
        None => Ok(()),
        Some(index) => Err(Error::stream(
            input.offset(),
            format!("page {} does not have the checksum that was announced", piece.first + index as u64),
        )),
    }
}
