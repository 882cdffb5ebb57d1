//! What the threads of one reception share, and the threads themselves.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::contents::Contents;
use super::main_channel::Main;
use super::page_log::{PageLog, Run};
use super::tap::{numbered, Keep, Tap};
use super::{beside, Control, ReceiverOptions, SLICE};
use crate::error::{Error, Result};
use crate::link::{Listener, Stream};
use crate::qemu::blocks::Blocks;
use crate::qemu::event::Content;
use crate::qemu::intake::Intake;
use crate::qemu::reception::{BlockSize, Channel, Outcome, PageKinds, Reception, Role};
use crate::qemu::{multifd, stream};

/// Longest wait for the source to close its connections after the end.
const CLOSING: Duration = Duration::from_secs(10);
/// Longest wait for the first bytes of a connection, once all the others have said everything.
const FIRST_BYTES: Duration = Duration::from_millis(300);
/// Most connections of one migration: the main one, 255 of multifd, and an urgent one.
const MOST_CHANNELS: usize = 257;

/// What all threads of one reception share.
pub(super) struct Session<'a> {
    pub(super) options: &'a ReceiverOptions,
    listener: &'a Listener,
    control: &'a Control,
    begun: Instant,
    notes: Mutex<Notes>,
    log: Mutex<Option<PageLog>>,
    contents: Mutex<Option<Contents>>,
    /// Told of each change that a thread may wait for.
    changed: Condvar,
}

pub(super) struct Notes {
    pub(super) reception: Reception,
    streams: Vec<Stream>,
    /// Threads that read.
    busy: usize,
    /// How it ends, once that is known.
    verdict: Option<(Outcome, String)>,
    /// When the end was known.
    over: Option<Instant>,
    blocks: Option<Arc<Blocks>>,
    /// Points at which the main channel was level with the others: ends of pages, and marks of their own.
    pub(super) section_ends: u64,
    pub(super) marks: u64,
}

impl Notes {
    /// Whether the source has lost the link.
    fn is_dropped(&self) -> bool {
        self.verdict.as_ref().is_some_and(|(outcome, _)| *outcome != Outcome::Accepted)
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(
        options: &'a ReceiverOptions,
        listener: &'a Listener,
        control: &'a Control,
    ) -> Result<Self> {
        let notes = Notes {
            reception: Reception::begun(),
            streams: Vec::new(),
            busy: 0,
            verdict: None,
            over: None,
            blocks: None,
            section_ends: 0,
            marks: 0,
        };
        Ok(Self {
            options,
            listener,
            control,
            begun: Instant::now(),
            notes: Mutex::new(notes),
            log: Mutex::new(options.log.as_deref().map(PageLog::create).transpose()?),
            contents: Mutex::new(options.log.as_deref().map(Contents::beside).transpose()?),
            changed: Condvar::new(),
        })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the notes, and lets those see it who wait.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        let changed = change(&mut self.notes());
        self.changed.notify_all();
        changed
    }

    /// Seconds since the first connection.
    pub(super) fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Whether pages are logged.
    pub(super) fn logs(&self) -> bool {
        self.options.log.is_some()
    }

    /// Whether the end is known.
    pub(super) fn is_over(&self) -> bool {
        self.notes().verdict.is_some()
    }

    /// `count` bytes have come in on connection `index`.
    pub(super) fn count(&self, index: usize, count: u64, now: f64) {
        self.control.add(count);
        self.notes().reception.count(index, count, now);
    }

    /// The main channel has listed its blocks, or had done so before.
    pub(super) fn list(&self, blocks: &Blocks) -> Result<()> {
        if self.notes().blocks.is_some() {
            return Ok(());
        }
        self.log().as_mut().map(|log| log.begin(blocks)).transpose()?;
        self.note(|notes| {
            let sizes = blocks.list().iter();
            notes.reception.blocks =
                sizes.map(|block| BlockSize { name: block.name.clone(), bytes: block.bytes }).collect();
            notes.blocks = Some(Arc::new(blocks.clone()));
        });
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Option<PageLog>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages of pass number `pass` have come in.
    pub(super) fn add_pages(&self, pass: usize, kinds: &PageKinds, bytes: u64, runs: &[Run]) -> Result<()> {
        let now = self.now();
        self.notes().reception.add_pages(pass, kinds, bytes, now);
        match self.log().as_mut() {
            Some(log) => runs.iter().try_for_each(|run| log.add(run, now)),
            None => Ok(()),
        }
    }

    /// A page of pass number `pass` has come in whose content is to be looked at, if it is logged.
    pub(super) fn look(&self, pass: usize, block: usize, page: u64, content: &Content<'_>) {
        if let Some(contents) = self.contents.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            contents.look(pass, block, page, content);
        }
    }

    /// Starts a thread that reads `stream`; one of a source that was dropped is dropped with the others.
    pub(super) fn take<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        stream: Stream,
    ) -> Result<()> {
        let mut notes = self.notes();
        let index = notes.streams.len();
        if index >= MOST_CHANNELS || notes.is_dropped() {
            // It may be closed already.
            let _ = stream.abort();
            return Ok(());
        }
        let path = self.options.keep.as_ref().map(|path| numbered(path, index));
        let keep = path.as_deref().map(Keep::create).transpose()?;
        notes.streams.push(stream.try_clone()?);
        notes.reception.channels.push(Channel { path, ..Channel::default() });
        notes.busy += 1;
        drop(notes);
        scope.spawn(move || {
            let tap = Tap { session: self, stream: &stream, keep, index };
            let read = self.read(scope, tap, &stream, index);
            self.done(index, read);
        });
        Ok(())
    }

    /// Accepts more connections until all that there are have ended.
    pub(super) fn oversee<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<()> {
        loop {
            self.accept(scope, SLICE)?;
            if self.control.is_cancelled() {
                self.end(Outcome::Dropped, "called off");
            }
            if self.options.limit.is_some_and(|limit| self.begun.elapsed() >= limit) {
                self.end(Outcome::Dropped, "the time was over");
            }
            let notes = self.notes();
            if notes.busy == 0 {
                let dropped = notes.is_dropped();
                drop(notes);
                // What the source has connected and nobody has taken would wait in its first write.
                while dropped && self.accept(scope, Duration::ZERO)? {}
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
    pub(super) fn end(&self, outcome: Outcome, reason: &str) {
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

    pub(super) fn close(&self) {
        for stream in &self.notes().streams {
            // One that is closed already needs no closing.
            let _ = stream.abort();
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

    /// What was received, once all threads have ended.
    pub(super) fn finish(self) -> Result<Reception> {
        let mut log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        log.as_mut().map(PageLog::finish).transpose()?;
        let contents = self.contents.into_inner().unwrap_or_else(PoisonError::into_inner);
        contents.as_ref().map(Contents::finish).transpose()?;
        let notes = self.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut reception = notes.reception;
        let lost =
            || (Outcome::Failed, "the source closed the connection before its stream was complete".into());
        (reception.outcome, reception.reason) = notes.verdict.unwrap_or_else(lost);
        if reception.duration == 0.0 {
            reception.duration = self.begun.elapsed().as_secs_f64();
        }
        Ok(reception)
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
            head if stream::is_main(head) => Role::Main,
            head if head == multifd::MAGIC => Role::Multifd,
            // Urgent pages have no head of their own: a record, whose first byte is that of an address.
            [0, ..] => Role::Preempt,
            _ => return Err(Error::stream(0, format!("{head:02x?} is no channel of a QEMU migration"))),
        };
        self.notes().reception.channels[index].role = role;
        self.changed.notify_all();
        match role {
            Role::Main => Main::new(self, stream, &|| self.wait_for_channels(scope)).read(intake),
            Role::Multifd => self.read_beside(&mut intake, index),
            Role::Preempt | Role::Silent => intake.drain(),
        }
    }

    fn read_beside(&self, intake: &mut Intake<Tap<'_>>, index: usize) -> Result<()> {
        let read = beside::read(self, intake, index);
        // A source that was told of the end, or was dropped, need not close politely.
        match self.is_over() {
            true => Ok(()),
            false => read,
        }
    }

    /// The RAM blocks, once the main channel has listed them.
    pub(super) fn wait_for_blocks(&self) -> Result<Arc<Blocks>> {
        let notes = self.notes();
        let waits = |notes: &mut Notes| notes.blocks.is_none() && notes.verdict.is_none();
        let waited = self.changed.wait_timeout_while(notes, CLOSING, waits);
        let notes = waited.unwrap_or_else(PoisonError::into_inner).0;
        let missing = || Error::link("a multifd channel without a main channel that lists the RAM blocks");
        notes.blocks.clone().ok_or_else(missing)
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
