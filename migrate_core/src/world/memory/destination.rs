//! The destination: takes a guest in, acknowledges it, and runs it once the source has let go.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::decoder::{decoders, Decoder};
use super::observe::watch_for;
use super::post_copy::{Arrival, Lanes};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{monotonic_ns, ExecutionState, Guest, GuestMemory, Layout, Restore};
use crate::knobs::Spec;
use crate::link::Stream;
use crate::wire::{Message, PostCopy, Reader, Section, Writer, MOST_PAGES};

/// Channels of one migration at most.
const MOST_CHANNELS: u32 = 64;

/// How a destination receives.
#[derive(Debug, Clone)]
pub struct Reception {
    /// How long the peer may be silent before it counts as lost.
    pub stall: Duration,
    /// Make all memory present before the first page comes, so that placing pages does not wait for the
    /// kernel. Left out where the machine's free memory is short.
    pub populate: bool,
    /// How long a guest that is ahead of its memory waits for its source to come back over another link
    /// before it is given up.
    pub recovery: Duration,
}

impl Default for Reception {
    fn default() -> Self {
        Self { stall: Duration::from_secs(10), populate: true, recovery: Duration::from_secs(60) }
    }
}

/// A guest that has moved in and runs.
pub struct Arrived {
    /// The guest.
    pub guest: Guest,
    /// Pages that came, zero pages included.
    pub received_pages: u64,
}

pub(super) type Input = Reader<Stream>;

/// Takes one guest in over `first` and as many more streams as the source announces, which `more` gives.
/// Returns when the guest runs here and all of its memory is here. `more` is given the longest time that it
/// may wait. An error means that the guest does not run, and that nothing of it is left.
pub fn receive(
    first: Stream,
    more: &mut dyn FnMut(Duration) -> Result<Stream>,
    reception: &Reception,
    restore: Restore<'_>,
) -> Result<Arrived> {
    let mut output = Writer::new(first.try_clone()?);
    let result = take_in(first, &mut output, more, reception, restore);
    if let Err(error) = &result {
        // The source will notice in any case; the reason is a courtesy.
        let _ = output.message(&Message::Failed { reason: error.to_string() });
    }
    result
}

struct Hello {
    session: u64,
    channel: u32,
    channels: u32,
    layout: Layout,
    codec: Option<Spec>,
    post_copy: Option<PostCopy>,
}

/// The channels of a link, after their hellos.
pub(super) struct Gathered {
    /// In the channels' order.
    pub(super) inputs: Vec<Input>,
    pub(super) layout: Layout,
    pub(super) session: u64,
    pub(super) codec: Option<Spec>,
    pub(super) post_copy: Option<PostCopy>,
}

fn hello(stream: Stream, stall: Duration) -> Result<(Input, Hello)> {
    stream.set_read_timeout(Some(stall))?;
    stream.set_write_timeout(Some(stall))?;
    let mut input = Reader::new(stream, 0);
    match input.message()? {
        Message::Hello { session, channel, channels, layout, codec, post_copy }
            if channel < channels && channels <= MOST_CHANNELS =>
        {
            Ok((input, Hello { session, channel, channels, layout, codec, post_copy }))
        }
        other => Err(Error::link(format!(
            "the first message must be a hello of 1 to {MOST_CHANNELS} channels, not {}",
            other.name()
        ))),
    }
}

/// Reads the hellos of all channels.
pub(super) fn gather(
    first: Stream,
    more: &mut dyn FnMut(Duration) -> Result<Stream>,
    stall: Duration,
) -> Result<Gathered> {
    let (input, greeting) = hello(first, stall)?;
    if greeting.channel != 0 {
        return Err(Error::link(format!("channel {} came before channel 0", greeting.channel)));
    }
    let mut inputs: Vec<Option<Input>> = (0..greeting.channels).map(|_| None).collect();
    inputs[0] = Some(input);
    for _ in 1..greeting.channels {
        let (input, other) = hello(more(stall)?, stall)?;
        let slot = &mut inputs[other.channel as usize % greeting.channels as usize];
        if other.session != greeting.session
            || other.channels != greeting.channels
            || slot.is_some()
            || other.codec != greeting.codec
        {
            return Err(Error::link(format!("channel {} belongs to another migration", other.channel)));
        }
        *slot = Some(input);
    }
    let pages = greeting.layout.bytes()? / crate::guest::PAGE as u64;
    let Hello { session, layout, codec, post_copy, .. } = greeting;
    let inputs = inputs.into_iter().flatten().map(|input| input.with_pages(pages)).collect();
    Ok(Gathered { inputs, layout, session, codec, post_copy })
}

fn take_in(
    first: Stream,
    output: &mut Writer<Stream>,
    more: &mut dyn FnMut(Duration) -> Result<Stream>,
    reception: &Reception,
    restore: Restore<'_>,
) -> Result<Arrived> {
    let Gathered { mut inputs, layout, session, codec, post_copy } = gather(first, more, reception.stall)?;
    if post_copy.is_some_and(|post_copy| post_copy.resume) {
        return Err(Error::link("a source came back for a guest that is not here"));
    }
    let faults = post_copy.is_some().then(|| inputs.pop()).flatten();
    let memory = Arc::new(GuestMemory::new(&layout)?);
    // Where execution comes first, its memory is filled page by page as it comes.
    let first = post_copy.is_some_and(|post_copy| post_copy.first);
    if reception.populate && !first && memory.bytes() < available_bytes() / 2 {
        memory.populate()?;
    }
    let mut decoders = decoders(codec.as_ref(), inputs.len(), &memory)?.into_iter();
    output.message(&Message::Welcome { boot_id: boot_id() })?;
    let channel = |input| Channel::new(input, Arc::clone(&memory), decoders.next().flatten());
    let mut channels = inputs.drain(..).map(channel);
    let Some(main) = channels.next() else { return Err(Error::link("no channel")) };
    let others = channels.map(Channel::spawn).collect::<Result<_>>()?;
    let flushed = Vec::new();
    let mut intake = Intake { main, others, flushed, state: None, missing: None, decode_seconds: 0.0 };
    intake.until_flushed(output)?;
    if let Some((missing, verify)) = intake.missing.take() {
        let faults = faults.ok_or_else(|| Error::link("there is no channel for remote faults"))?;
        intake.main.torn.subtract(&missing);
        intake.until_whole(output)?;
        let guest = intake.make_guest(restore)?;
        let received_pages = intake.main.pages;
        let arrival = Arrival::new(guest, missing, verify, session, reception)?;
        let lanes = Lanes::new(intake.main.input, intake.flushed, faults);
        let (guest, pages) = arrival.run(lanes, output, more)?;
        return Ok(Arrived { guest, received_pages: received_pages + pages });
    }
    let mut guest = intake.complete(output, restore)?;
    let watch = intake.until_let_go(output)?;
    let before = guest.progress().last_ran_ns;
    guest.resume()?;
    let first_ran_ns = first_tick(&guest, reception.stall)?;
    whole_tick(&guest, before, reception.stall)?;
    // The guest runs here now, whether the source hears of it or not.
    let _ = output.message(&Message::Running { first_ran_ns });
    watch_for(&guest, watch, output);
    Ok(Arrived { guest, received_pages: intake.main.pages })
}

pub(super) fn first_tick(guest: &Guest, stall: Duration) -> Result<u64> {
    let started = Instant::now();
    while started.elapsed() < stall {
        match guest.first_ran_ns() {
            Some(first_ran_ns) => return Ok(first_ran_ns),
            None => guest.check_alive()?,
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    Err(Error::link("the guest was resumed but did not run"))
}

/// Waits for the end of the first tick: a guest that crashes in it does not run. `before` is when it last ran
/// at the source. Where memory is not all there that may take long, and is not waited for.
fn whole_tick(guest: &Guest, before: u64, stall: Duration) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < stall && guest.progress().last_ran_ns == before {
        guest.check_alive()?;
        std::thread::sleep(Duration::from_micros(20));
    }
    guest.check_alive()
}

/// Names this boot of this machine: equal on two sides that share a clock.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// What comes over one channel.
struct Channel {
    input: Input,
    memory: Arc<GuestMemory>,
    /// Pages that came torn and have not come again. A page always comes over the same channel.
    torn: Bitmap,
    pages: u64,
    decoder: Option<Decoder>,
}

impl Channel {
    fn new(input: Input, memory: Arc<GuestMemory>, decoder: Option<Decoder>) -> Self {
        let torn = Bitmap::new(memory.pages());
        Self { input, memory, torn, pages: 0, decoder }
    }

    fn spawn(mut self) -> Result<JoinHandle<Result<Self>>> {
        let body = move || match self.next_message()? {
            Message::Flush => Ok(self),
            other => Err(Error::link(format!("{} came over a channel for pages", other.name()))),
        };
        let thread = Builder::new().name("receiver".into()).spawn(body);
        thread.map_err(|source| Error::System { what: "starting a receiver's thread".into(), source })
    }

    /// Places pages until a message comes.
    fn next_message(&mut self) -> Result<Message> {
        loop {
            match self.input.section()? {
                Section::Message(Message::Failed { reason }) => {
                    return Err(Error::link(format!("the source gave up: {reason}")))
                }
                Section::Message(message) => return Ok(message),
                Section::Pages { runs, hashes } => {
                    let torn = self.input.read_pages(&self.memory, &runs, &hashes)?;
                    self.arrived(&runs);
                    torn.into_iter().for_each(|page| self.torn.set(page));
                }
                Section::Zeros { runs } => {
                    runs.iter().flat_map(Run::range).for_each(|page| self.memory.place_zero(page));
                    self.decoder.iter_mut().for_each(|decoder| decoder.passed_zeros(&runs));
                    self.arrived(&runs);
                }
                Section::Encoded(encoding) => {
                    let decoder = self.decoder.as_mut().ok_or_else(no_codec)?;
                    decoder.take(&mut self.input, &self.memory, &encoding)?;
                    self.arrived(&encoding.runs);
                }
                Section::Learnt(learnt) => {
                    self.decoder.as_mut().ok_or_else(no_codec)?.adopt(&learnt)?;
                }
                Section::Hashes { .. } => {
                    return Err(Error::link("a source sends no checksums of its own accord"))
                }
            }
        }
    }

    fn arrived(&mut self, runs: &[Run]) {
        self.pages += runs.iter().map(|run| run.pages).sum::<u64>();
        runs.iter().for_each(|run| self.torn.clear_range(run.range()));
    }
}

fn no_codec() -> Error {
    Error::link("encoded pages came, and the source had named no codec")
}

/// A guest on its way in.
struct Intake {
    main: Channel,
    others: Vec<JoinHandle<Result<Channel>>>,
    /// The other channels once they were flushed.
    flushed: Vec<Input>,
    /// What stays behind where execution moves ahead, and whether it will be compared.
    missing: Option<(Bitmap, bool)>,
    state: Option<ExecutionState>,
    /// Spent decoding over the other channels.
    decode_seconds: f64,
}

impl Intake {
    /// Takes pages until all channels have been flushed.
    fn until_flushed(&mut self, output: &mut Writer<Stream>) -> Result<()> {
        loop {
            match self.main.next_message()? {
                Message::Ping => output.message(&Message::Pong { clock_ns: monotonic_ns() })?,
                Message::State { state } => self.state = Some(state),
                Message::Missing { pages, verify } => {
                    self.missing = Some((pages.checked(self.main.memory.pages())?, verify));
                }
                Message::Flush => break,
                other => return Err(Error::link(format!("{} came while pages were expected", other.name()))),
            }
        }
        for other in self.others.drain(..) {
            let channel = other.join().map_err(|_| Error::link("a receiver's thread panicked"))??;
            self.main.torn.union_with(&channel.torn);
            self.main.pages += channel.pages;
            self.decode_seconds += channel.decoder.map_or(0.0, |decoder| decoder.seconds());
            self.flushed.push(channel.input);
        }
        Ok(())
    }

    /// Asks for torn pages until none is left.
    fn until_whole(&mut self, output: &mut Writer<Stream>) -> Result<()> {
        while !self.main.torn.is_empty() {
            output.message(&Message::resend(&self.main.torn))?;
            match self.main.next_message()? {
                Message::Flush => {}
                other => {
                    return Err(Error::link(format!(
                        "{} came where torn pages were to come again",
                        other.name()
                    )))
                }
            }
        }
        Ok(())
    }

    fn make_guest(&mut self, restore: Restore<'_>) -> Result<Guest> {
        let Some(state) = self.state.take() else { return Err(Error::link("no execution state came")) };
        Guest::restore(Arc::clone(&self.main.memory), state, restore)
    }

    /// Asks for what is missing, makes the guest, and acknowledges.
    fn complete(&mut self, output: &mut Writer<Stream>, restore: Restore<'_>) -> Result<Guest> {
        self.until_whole(output)?;
        let guest = self.make_guest(restore)?;
        if let Some(decoder) = &self.main.decoder {
            output.message(&Message::Decoded { seconds: self.decode_seconds + decoder.seconds() })?;
        }
        output.message(&Message::Loaded)?;
        Ok(guest)
    }

    /// Waits for the source to let go, telling checksums if asked. Gives the time for which the guest is to be
    /// watched then.
    fn until_let_go(&mut self, output: &mut Writer<Stream>) -> Result<Duration> {
        let mut watch = Duration::ZERO;
        loop {
            match self.main.next_message()? {
                Message::Go => return Ok(watch),
                Message::Observe { for_ns } => watch = Duration::from_nanos(for_ns),
                Message::Verify => self.tell_hashes(output)?,
                other => {
                    return Err(Error::link(format!("{} came where the source was to let go", other.name())))
                }
            }
        }
    }

    fn tell_hashes(&self, output: &mut Writer<Stream>) -> Result<()> {
        let pages = self.main.memory.pages();
        (0..pages).step_by(MOST_PAGES as usize).try_for_each(|first| {
            output.hashes(&self.main.memory, Run { first, pages: MOST_PAGES.min(pages - first) })
        })
    }
}
