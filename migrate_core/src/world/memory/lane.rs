//! A lane: one channel of the link with the thread that sends over it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::encoder::{Encoder, Outlet, Packet};
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::{thread_waits, GuestMemory, PAGE};
use crate::link::Stream;
use crate::report::Coding;
use crate::wire::{Beat, Message, Milestone, Writer};
use crate::world::Sent;

/// Something to send.
pub(super) enum Job {
    /// Pages from guest memory, at most [`crate::wire::MOST_PAGES`].
    Pages(Vec<Run>),
    /// Pages whose contents were copied before, so that they are those that a tracker was told.
    Copied(Vec<Run>, Vec<u8>),
    /// Pages of a guest that runs elsewhere: nothing writes to them here.
    Push(Vec<Run>),
    /// Pages of zeros.
    Zeros(Vec<Run>),
    /// Pages that were encoded.
    Encoded(Packet),
    /// What a codec has learnt.
    Learnt(Arc<Vec<u8>>),
    /// A message.
    Message(Message),
    /// Answer when all before has been sent.
    Barrier(Sender<()>),
}

impl Job {
    /// Bytes that an encoder put in the pipe with it.
    fn queued(&self) -> u64 {
        match self {
            Self::Encoded(packet) => packet.encoding.bytes,
            _ => 0,
        }
    }
}

/// What all lanes of a migration have sent.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes: AtomicU64,
    pub(super) pages: AtomicU64,
    pub(super) zero_pages: AtomicU64,
    encoded_pages: AtomicU64,
    coding: Mutex<Coding>,
    /// The destination's last sign of life, where execution is ahead of memory.
    pub(super) beat: Mutex<Beat>,
    milestones: Mutex<Vec<Milestone>>,
}

impl Counters {
    pub(super) fn sent(&self) -> Sent {
        Sent {
            bytes: self.bytes.load(Relaxed),
            pages: self.pages.load(Relaxed),
            zero_pages: self.zero_pages.load(Relaxed),
            encoded_pages: self.encoded_pages.load(Relaxed),
            ..Sent::default()
        }
    }

    /// How far the guest has come ahead of its memory, at moments in order.
    pub(super) fn milestones(&self) -> MutexGuard<'_, Vec<Milestone>> {
        self.milestones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What encoding did until the last round's end.
    pub(super) fn coding(&self) -> MutexGuard<'_, Coding> {
        // Additions leave nothing half done.
        self.coding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sending thread and its queue. The queue holds nothing: a job is taken when the one before is on the
/// link, so that bits cleared "just before sending" are cleared at most one chunk before. Where an encoder
/// stands before it, that one takes a job when it has copied and encoded the one before.
pub(super) struct Lane {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<Result<()>>>,
    encoder: Option<JoinHandle<Result<()>>>,
}

impl Lane {
    /// Sends over `stream` what comes from `encoder`, if there is one; `find_zeros` names zero pages instead of
    /// sending them.
    pub(super) fn new(
        stream: Stream,
        memory: Arc<GuestMemory>,
        counters: Arc<Counters>,
        find_zeros: bool,
        encoder: Option<(Encoder, Outlet)>,
    ) -> Result<Self> {
        let failed = |source| Error::System { what: "starting a lane's thread".into(), source };
        let (jobs, mut queue) = sync_channel(0);
        let (mut encoding, mut outlet) = (None, None);
        if let Some((encoder, end)) = encoder {
            let (thread, ready) = encoder.spawn(queue).map_err(failed)?;
            (encoding, queue, outlet) = (Some(thread), ready, Some(end));
        }
        let worker = Worker { writer: Writer::new(stream), memory, counters, find_zeros, outlet };
        let thread = std::thread::Builder::new().name("lane".into()).spawn(move || worker.run(&queue));
        Ok(Self { jobs: Some(jobs), thread: Some(thread.map_err(failed)?), encoder: encoding })
    }

    /// Hands a job over. An error is that of an earlier job.
    pub(super) fn send(&mut self, job: Job) -> Result<()> {
        match self.jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.close().err().unwrap_or_else(|| Error::link("the lane is closed"))),
        }
    }

    /// Ends the thread after the jobs taken so far.
    pub(super) fn close(&mut self) -> Result<()> {
        self.jobs = None;
        let (sent, encoded) = (end(self.thread.take()), end(self.encoder.take()));
        sent.and(encoded)
    }
}

fn end(thread: Option<JoinHandle<Result<()>>>) -> Result<()> {
    match thread.map(JoinHandle::join) {
        None => Ok(()),
        Some(Ok(ended)) => ended,
        Some(Err(_)) => Err(Error::link("a lane's thread panicked")),
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Its error, if any, has nobody left to hear it.
        let _ = self.close();
    }
}

/// Waits until all lanes have sent what they were given.
pub(super) fn settle(lanes: &mut [Lane]) -> Result<()> {
    let (done, all_done) = channel();
    for lane in lanes.iter_mut() {
        lane.send(Job::Barrier(done.clone()))?;
    }
    drop(done);
    // Each lane answers, or had failed before it was asked.
    all_done.iter().for_each(drop);
    Ok(())
}

struct Worker {
    writer: Writer<Stream>,
    memory: Arc<GuestMemory>,
    counters: Arc<Counters>,
    find_zeros: bool,
    outlet: Option<Outlet>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>) -> Result<()> {
        for job in queue {
            let (before, began, queued) = (self.writer.sent(), Instant::now(), job.queued());
            let waits = thread_waits();
            self.do_job(job)?;
            let sent = self.writer.sent() - before;
            self.counters.bytes.fetch_add(sent, Relaxed);
            if let Some(outlet) = self.outlet.as_ref().filter(|_| sent > 0) {
                outlet.pipe.took(queued, sent, began..Instant::now(), thread_waits() > waits);
            }
        }
        Ok(())
    }

    fn do_job(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Message(message) => self.writer.message(&message)?,
            Job::Zeros(runs) => self.send_zeros(&runs)?,
            Job::Encoded(packet) => self.send_encoded(packet)?,
            Job::Learnt(learnt) => self.writer.learnt(&learnt)?,
            // Nobody waits any more if this fails.
            Job::Barrier(done) => {
                let _ = done.send(());
            }
            Job::Pages(runs) | Job::Push(runs) => {
                let memory = Arc::clone(&self.memory);
                let (zeros, others) = self.sort(&runs, |page, _| memory.is_zero(page));
                self.send_zeros(&zeros)?;
                self.count(&others);
                if !others.is_empty() {
                    self.writer.pages(&memory, &others)?;
                }
            }
            Job::Copied(runs, contents) => {
                let page_at = |index: usize| &contents[index * PAGE..(index + 1) * PAGE];
                let mut bytes = Vec::with_capacity(contents.len());
                let (zeros, others) = self.sort(&runs, |_, index| {
                    let zero = page_at(index).iter().all(|b| *b == 0);
                    if !zero {
                        bytes.extend_from_slice(page_at(index));
                    }
                    zero
                });
                let contents = if self.find_zeros { bytes } else { contents };
                self.send_zeros(&zeros)?;
                self.count(&others);
                if !others.is_empty() {
                    self.writer.copied_pages(&contents, &others)?;
                }
            }
        }
        Ok(())
    }

    fn count(&self, runs: &[Run]) {
        self.counters.pages.fetch_add(runs.iter().map(|run| run.pages).sum(), Relaxed);
    }

    fn send_encoded(&mut self, packet: Packet) -> Result<()> {
        let Packet { encoding, data, raw_pages } = packet;
        self.writer.encoded(&encoding, &data)?;
        self.count(&encoding.runs);
        self.counters.encoded_pages.fetch_add(encoding.pages() as u64 - raw_pages, Relaxed);
        if let Some(outlet) = &self.outlet {
            // An encoder that is gone needs no buffer.
            let _ = outlet.spare.send(data);
        }
        Ok(())
    }

    fn send_zeros(&mut self, zeros: &[Run]) -> Result<()> {
        if zeros.is_empty() {
            return Ok(());
        }
        self.count(zeros);
        self.counters.zero_pages.fetch_add(zeros.iter().map(|run| run.pages).sum(), Relaxed);
        self.writer.zeros(zeros)
    }

    /// Zero pages and others, as runs. A page is looked at once: one that becomes zero or ceases to be is
    /// dirty and comes again.
    fn sort(&self, runs: &[Run], mut is_zero: impl FnMut(u64, usize) -> bool) -> (Vec<Run>, Vec<Run>) {
        if !self.find_zeros {
            return (Vec::new(), runs.to_vec());
        }
        let (mut zeros, mut others) = (Vec::new(), Vec::new());
        for (index, page) in runs.iter().flat_map(Run::range).enumerate() {
            append(if is_zero(page, index) { &mut zeros } else { &mut others }, page);
        }
        (zeros, others)
    }
}

/// Adds a page behind all others, growing the last run if they touch.
pub(super) fn append(runs: &mut Vec<Run>, page: u64) {
    match runs.last_mut() {
        Some(last) if last.end() == page => last.pages += 1,
        _ => runs.push(Run { first: page, pages: 1 }),
    }
}
