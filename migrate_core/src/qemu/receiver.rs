//! A destination for a real QEMU source that keeps or drops what comes, and notes all of it with its moment.
//!
//! The source sees a destination as QEMU's: all its connections are taken, pings are answered, and at the end it is
//! told that everything was loaded ([`Ending::Accept`]; the guest then runs nowhere), or it loses the link and goes on
//! running its guest ([`Ending::Drop`]).
//!
//! A source without a return path counts the migration as done when its last write has succeeded, and a write succeeds
//! when the bytes are in a socket's buffer. So it can only be dropped safely before that: without a return path,
//! `Drop` ends the migration at its first bytes of memory. Post-copy lets the guest go before the memory has come: with
//! `Drop` a source that has announced it is refused.
//!
//! Every connection has a thread that reads it; the calling thread accepts, and watches over time limits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::intake::Intake;
use super::packets::{follow, Packet, MAGIC};
use super::reception::{Channel, Outcome, Reception, Role, Section};
use super::return_path::Reply;
use super::watch::{PageKinds, SectionKind, Sight, Watch};
use crate::error::{Error, Result};
use crate::link::{Listener, Stream};

/// How often the calling thread looks at limits and at the end.
const SLICE: Duration = Duration::from_millis(20);
/// Longest wait for the source to close its connections after the end.
const CLOSING: Duration = Duration::from_secs(10);
/// Longest wait for the first bytes of a connection, once all the others have said everything.
const FIRST_BYTES: Duration = Duration::from_millis(300);
/// Most connections of one migration: the main one, 255 of multifd, and an urgent one.
const MOST_CHANNELS: usize = 257;

const OPEN_RETURN_PATH: u16 = 1;
const PING: u16 = 2;
const ADVISE: u16 = 3;
const SWITCHOVER_START: u16 = 11;

/// What becomes of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The source completes: its guest has left it.
    Accept,
    /// The source loses the link when it is about to let the guest go, and goes on running it.
    Drop,
    /// As `Drop`, and a source with the capability `switchover-ack` is never told that it may switch over: it goes on
    /// copying, and its guest is not stopped for a moment, until the migration is cancelled there.
    Hold,
}

/// How a migration is received.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// Where the bytes are kept: the main channel's in this file, those of others in files with `.1`, `.2`, ... after
    /// the name, in the order of their connections. `None`: they are measured and forgotten.
    pub keep: Option<PathBuf>,
    /// How it ends.
    pub ending: Ending,
    /// It is dropped after that time, if it lasts as long, whatever `ending` says.
    pub limit: Option<Duration>,
    /// How long to wait for the first connection; `None` waits for ever.
    pub wait: Option<Duration>,
    /// How long the main channel may be silent before the source counts as lost; `None`: for ever, since a source that
    /// pauses before switchover is silent until its manager goes on.
    pub stall: Option<Duration>,
    /// Whether a source with the capability `switchover-ack` is told that it may switch over. It is told anyhow where
    /// the machine's type shows a QEMU that knows the message (8.1 and later); an older one fails on it.
    pub switchover_ack: bool,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            keep: None,
            ending: Ending::Accept,
            limit: None,
            wait: None,
            stall: None,
            switchover_ack: false,
        }
    }
}

/// What other threads may see of a reception, and do to it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    bytes: AtomicU64,
}

impl Control {
    /// Drops the migration, or ends the wait for one.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Bytes of all channels that have come in.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Receives one migration.
///
/// # Errors
/// [`Error::Link`] where nobody connects in time; [`Error::System`] where a file cannot be made. What the source does
/// wrong is no error, but the outcome.
pub fn receive(listener: &Listener, options: &ReceiverOptions, control: &Control) -> Result<Reception> {
    let first = first(listener, options, control)?;
    let session = Session::new(options, listener, control);
    std::thread::scope(|scope| -> Result<()> {
        let taken = session.take(scope, first);
        // What was started must come to its end whatever happens here.
        taken.and_then(|()| session.oversee(scope)).inspect_err(|_| session.close())
    })?;
    Ok(session.finish())
}

fn first(listener: &Listener, options: &ReceiverOptions, control: &Control) -> Result<Stream> {
    let begun = Instant::now();
    loop {
        if control.cancelled.load(Ordering::Relaxed) {
            return Err(Error::link("called off"));
        }
        match listener.accept(SLICE.min(options.wait.unwrap_or(SLICE))) {
            Ok(stream) => return Ok(stream),
            Err(Error::Link { source: None, .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(wait) = options.wait.filter(|wait| begun.elapsed() >= *wait) {
            let limit = wait.as_secs_f64();
            return Err(Error::link(format!("nobody connected to {} within {limit} s", listener.endpoint())));
        }
    }
}

/// What all threads of one reception share.
struct Session<'a> {
    options: &'a ReceiverOptions,
    listener: &'a Listener,
    control: &'a Control,
    begun: Instant,
    notes: Mutex<Notes>,
    /// Told of each change that a thread may wait for.
    changed: Condvar,
}

struct Notes {
    reception: Reception,
    streams: Vec<Stream>,
    /// Threads that read.
    busy: usize,
    /// How it ends, once that is known.
    verdict: Option<(Outcome, String)>,
    /// When the end was known.
    over: Option<Instant>,
    /// Points at which the main channel was level with the others: ends of pages, and marks of their own.
    section_ends: u64,
    marks: u64,
}

impl<'a> Session<'a> {
    fn new(options: &'a ReceiverOptions, listener: &'a Listener, control: &'a Control) -> Self {
        let notes = Notes {
            reception: Reception::begun(),
            streams: Vec::new(),
            busy: 0,
            verdict: None,
            over: None,
            section_ends: 0,
            marks: 0,
        };
        Self {
            options,
            listener,
            control,
            begun: Instant::now(),
            notes: Mutex::new(notes),
            changed: Condvar::new(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Starts a thread that reads `stream`.
    fn take<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        stream: Stream,
    ) -> Result<()> {
        let mut notes = self.notes();
        let index = notes.streams.len();
        if index >= MOST_CHANNELS {
            return Ok(());
        }
        let path = self.options.keep.as_ref().map(|path| numbered(path, index));
        let file = path.as_ref().map(File::create).transpose();
        let file = file.map_err(|source| {
            let what = format!("creating {}", path.as_deref().unwrap_or("".as_ref()).display());
            Error::System { what, source }
        })?;
        notes.streams.push(stream.try_clone()?);
        notes.reception.channels.push(Channel { path, ..Channel::default() });
        notes.busy += 1;
        drop(notes);
        scope.spawn(move || {
            let tap = Tap { session: self, stream: &stream, file, index };
            let read = self.read(scope, tap, &stream, index);
            self.done(index, read);
        });
        Ok(())
    }

    /// Accepts more connections until all that there are have ended.
    fn oversee<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) -> Result<()> {
        loop {
            self.accept(scope, SLICE)?;
            if self.control.cancelled.load(Ordering::Relaxed) {
                self.end(Outcome::Dropped, "called off");
            }
            if self.options.limit.is_some_and(|limit| self.begun.elapsed() >= limit) {
                self.end(Outcome::Dropped, "the time was over");
            }
            let notes = self.notes();
            if notes.busy == 0 {
                return Ok(());
            }
            if notes.over.is_some_and(|over| over.elapsed() >= CLOSING) {
                drop(notes);
                self.close();
            }
        }
    }

    /// Takes the next connection, if there is one within `wait`; whether there was.
    fn accept<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        wait: Duration,
    ) -> Result<bool> {
        match self.listener.accept(wait) {
            Ok(stream) => self.take(scope, stream).map(|()| true),
            Err(Error::Link { source: None, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says how it ends, unless that is known; where it is not accepted, the source loses the link.
    fn end(&self, outcome: Outcome, reason: &str) {
        let mut notes = self.notes();
        if notes.verdict.is_none() {
            notes.verdict = Some((outcome, reason.to_owned()));
            notes.over = Some(Instant::now());
            notes.reception.duration = self.now();
            drop(notes);
            if outcome != Outcome::Accepted {
                self.close();
            }
            self.changed.notify_all();
        }
    }

    fn close(&self) {
        for stream in &self.notes().streams {
            // One that is closed already needs no closing.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// A connection has ended.
    fn done(&self, index: usize, read: Result<()>) {
        if let Err(error) = read {
            self.end(Outcome::Failed, &error.to_string());
        }
        let mut notes = self.notes();
        notes.busy -= 1;
        notes.reception.channels[index].closed = true;
        drop(notes);
        self.changed.notify_all();
    }

    fn finish(self) -> Reception {
        let notes = self.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut reception = notes.reception;
        let lost =
            || (Outcome::Failed, "the source closed the connection before its stream was complete".into());
        (reception.outcome, reception.reason) = notes.verdict.unwrap_or_else(lost);
        if reception.duration == 0.0 {
            reception.duration = self.begun.elapsed().as_secs_f64();
        }
        reception
    }

    fn read<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        tap: Tap<'_>,
        stream: &Stream,
        index: usize,
    ) -> Result<()> {
        let mut intake = Intake::new(tap);
        let head = intake.peek(4)?;
        let role = match head {
            [] => Role::Silent,
            b"QEVM" => Role::Main,
            head if head == &MAGIC[..4] => Role::Multifd,
            // Urgent pages have no head of their own: a record, whose first byte is that of an address.
            [0, ..] => Role::Preempt,
            _ => return Err(Error::stream(0, format!("{head:02x?} is no channel of a QEMU migration"))),
        };
        self.notes().reception.channels[index].role = role;
        self.changed.notify_all();
        match role {
            Role::Main => Main::new(self, stream, &|| self.wait_for_channels(scope)).read(intake),
            Role::Multifd => self.read_packets(&mut intake, index),
            Role::Preempt | Role::Silent => drain(&mut intake),
        }
    }

    fn read_packets(&self, intake: &mut Intake<Tap<'_>>, index: usize) -> Result<()> {
        let mut pass = 0;
        let mut last = None;
        let read = follow(intake, &mut |packet| {
            let now = self.now();
            let mut notes = self.notes();
            match packet {
                Packet::Number(number) => notes.reception.channels[index].number = Some(number),
                Packet::Sync => {
                    notes.reception.channels[index].syncs += 1;
                    drop(notes);
                    self.changed.notify_all();
                }
                Packet::Pages { block, span, kinds, bytes } => {
                    let rank = notes.reception.blocks.iter().position(|known| known.name.as_bytes() == block);
                    let first = (rank, span.0);
                    pass += usize::from(last.is_some_and(|last| first <= last));
                    last = Some((rank, span.1));
                    notes.reception.add_pages(pass, &kinds, bytes, now);
                }
            }
            Ok(())
        });
        // A source that was told of the end, or was dropped, need not close politely.
        if self.notes().verdict.is_some() {
            Ok(())
        } else {
            read
        }
    }

    /// Waits until all multifd channels have come to the point at which the main one is.
    ///
    /// All have connected before the memory began, but need not have been taken.
    fn wait_for_channels<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) -> Result<()> {
        while self.accept(scope, Duration::ZERO)? {}
        // One that says nothing is none of the migration's.
        self.wait(FIRST_BYTES, |channel, _| channel.role != Role::Silent);
        match self.wait(CLOSING, |channel, points| channel.role != Role::Multifd || channel.syncs >= points) {
            true => Ok(()),
            false => Err(Error::link(
                "the stream is complete, but its multifd channels have not come level with it",
            )),
        }
    }

    /// Whether, within `limit`, all channels are `ready` or closed, or the end is known.
    fn wait(&self, limit: Duration, ready: impl Fn(&Channel, u64) -> bool) -> bool {
        let waits = |notes: &mut Notes| {
            let points = if notes.marks > 0 { notes.marks } else { notes.section_ends };
            let ready = |channel: &Channel| channel.closed || ready(channel, points);
            notes.verdict.is_none() && !notes.reception.channels.iter().all(ready)
        };
        let waited = self.changed.wait_timeout_while(self.notes(), limit, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// The file for connection `index`.
fn numbered(path: &std::path::Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    name.into()
}

fn drain<R: Read>(intake: &mut Intake<R>) -> Result<()> {
    while !intake.is_at_end()? {
        let here = intake.window(1)?.len() as u64;
        intake.skip(here)?;
    }
    Ok(())
}

/// A connection's bytes on their way in: counted, and kept where asked for.
struct Tap<'a> {
    session: &'a Session<'a>,
    stream: &'a Stream,
    file: Option<File>,
    index: usize,
}

impl Read for Tap<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        let count = stream.read(bytes)?;
        if let Some(file) = &mut self.file {
            // Told apart from what the connection may suffer.
            file.write_all(&bytes[..count])
                .map_err(|error| io::Error::other(format!("keeping it failed: {error}")))?;
        }
        self.session.control.bytes.fetch_add(count as u64, Ordering::Relaxed);
        let now = self.session.now();
        self.session.notes().reception.count(self.index, count as u64, now);
        Ok(count)
    }
}

/// The reader of the main channel.
struct Main<'a> {
    session: &'a Session<'a>,
    stream: &'a Stream,
    /// Waits for the other channels.
    come_level: &'a dyn Fn() -> Result<()>,
    /// The source knows all that this receiver may say.
    newer: bool,
    pass: usize,
    section: Option<Section>,
}

impl<'a> Main<'a> {
    fn new(session: &'a Session<'a>, stream: &'a Stream, come_level: &'a dyn Fn() -> Result<()>) -> Self {
        Self { session, stream, come_level, newer: false, pass: 0, section: None }
    }

    fn read(mut self, intake: Intake<Tap<'_>>) -> Result<()> {
        let session = self.session;
        self.stream.set_read_timeout(session.options.stall)?;
        let mut see = |sight, at| self.note(sight, at);
        let mut watch = Watch::new(intake, &mut see);
        let read = watch.run();
        if read.is_ok() {
            // Whatever comes after the end, until the source closes, is nobody's business.
            let _ = watch.drain();
        }
        match session.notes().verdict {
            Some(_) => Ok(()),
            None => read,
        }
    }

    fn note(&mut self, sight: Sight, at: u64) -> Result<()> {
        let now = self.session.now();
        match sight {
            Sight::Head(machine) => {
                self.newer = machine.as_deref().is_some_and(knows_switchover_ack);
                self.session.notes().reception.machine = machine;
            }
            Sight::Command(number, payload) => self.command(number, &payload, now)?,
            Sight::Block(block) => self.session.notes().reception.blocks.push(block),
            Sight::Begins(kind, name) => self.begins(kind, name, at, now)?,
            Sight::Pages(kinds, bytes) => self.pages(&kinds, bytes, now),
            Sight::Wrapped => self.pass += 1,
            Sight::Barrier(mark) => {
                let mut notes = self.session.notes();
                *if mark { &mut notes.marks } else { &mut notes.section_ends } += 1;
            }
            Sight::Ends => self.ends(at, now),
            Sight::Tail => self.begins(SectionKind::Full, "device state".into(), at, now)?,
            Sight::Complete => self.complete(at)?,
        }
        Ok(())
    }

    fn command(&mut self, number: u16, payload: &[u8], now: f64) -> Result<()> {
        match number {
            OPEN_RETURN_PATH => {
                self.session.notes().reception.return_path = true;
                let options = self.session.options;
                if options.ending != Ending::Hold && (self.newer || options.switchover_ack) {
                    self.say(&Reply::SwitchoverAck)?;
                }
            }
            PING => {
                let value = payload.try_into().map_or(0, u32::from_be_bytes);
                self.say(&Reply::Pong { value })?;
            }
            ADVISE if payload.len() == 16 && self.drops() => {
                return self
                    .drop_it("post-copy is enabled at the source, which could lose its guest: disable it");
            }
            SWITCHOVER_START => return self.stopped(now),
            _ => {}
        }
        Ok(())
    }

    fn begins(&mut self, kind: SectionKind, name: String, at: u64, now: f64) -> Result<()> {
        let unheard = kind == SectionKind::Start && !self.session.notes().reception.return_path;
        if unheard && self.drops() {
            return self.drop_it("the source has no return path (capability `return-path`)");
        }
        let pages = PageKinds::default();
        self.section = Some(Section { kind, name, offset: at, bytes: 0, start: now, end: now, pages });
        if kind == SectionKind::End {
            self.stopped(now)?;
        }
        Ok(())
    }

    fn pages(&mut self, kinds: &PageKinds, bytes: u64, now: f64) {
        if let Some(section) = &mut self.section {
            section.pages.add(kinds);
        }
        self.session.notes().reception.add_pages(self.pass, kinds, bytes, now);
    }

    fn ends(&mut self, end: u64, now: f64) {
        if let Some(mut section) = self.section.take() {
            section.bytes = end - section.offset;
            section.end = now;
            self.session.notes().reception.add_section(section);
        }
    }

    /// The guest is stopped at the source.
    fn stopped(&mut self, now: f64) -> Result<()> {
        self.session.notes().reception.stopped.get_or_insert(now);
        if self.drops() {
            return self.drop_it("asked to drop it at switchover");
        }
        Ok(())
    }

    fn complete(&mut self, at: u64) -> Result<()> {
        self.ends(at, self.session.now());
        (self.come_level)()?;
        let now = self.session.now();
        self.session.notes().reception.complete = Some(now);
        if self.session.notes().reception.return_path {
            self.say(&Reply::Shut { error: 0 })?;
        }
        self.session.end(Outcome::Accepted, "");
        Ok(())
    }

    fn drops(&self) -> bool {
        self.session.options.ending != Ending::Accept
    }

    /// Lets the source lose the link.
    fn drop_it(&self, reason: &str) -> Result<()> {
        self.session.end(Outcome::Dropped, reason);
        Err(Error::link(reason))
    }

    fn say(&self, reply: &Reply) -> Result<()> {
        let mut stream = self.stream;
        let bytes = reply.encode()?;
        stream.write_all(&bytes).map_err(|error| self.stream.explain("answering on the return path", error))
    }
}

/// Whether a machine's type is of QEMU 8.1 or later: `pc-i440fx-8.1`, `virt-10.0`.
fn knows_switchover_ack(machine: &str) -> bool {
    let version = machine.rsplit('-').next().and_then(|version| version.split_once('.'));
    let numbers = version.map(|(major, minor)| (major.parse::<u32>(), minor.parse::<u32>()));
    matches!(numbers, Some((Ok(major), Ok(minor))) if (major, minor) >= (8, 1))
}
