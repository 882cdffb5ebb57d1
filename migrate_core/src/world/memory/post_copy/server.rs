//! The source's thread for remote faults: answers each request at once, over a channel of its own.

use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::super::lane::Counters;
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};
use crate::link::Stream;
use crate::report::Faults;
use crate::track::run_soon;
use crate::wire::{Beat, Message, Reader, Writer};

/// What the destination has said over the channel of faults.
#[derive(Debug)]
struct Seen {
    asked: Vec<u64>,
    beat: Beat,
    /// When the destination last placed a page.
    progress: Instant,
    complete: Option<Box<Faults>>,
    failure: Option<String>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The thread and what it has heard. Dropping it ends the channel.
#[derive(Debug)]
pub(super) struct Server {
    shared: Arc<Shared>,
    stream: Stream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves pages of `memory`, in which nothing is written any more once they are asked for. `answers` is
    /// false where somebody else sends what was asked for.
    pub(super) fn start(
        stream: &Stream,
        memory: &Arc<GuestMemory>,
        counters: &Arc<Counters>,
        answers: bool,
    ) -> Result<Self> {
        let seen = Seen {
            asked: Vec::new(),
            beat: Beat::default(),
            progress: Instant::now(),
            complete: None,
            failure: None,
        };
        let shared = Arc::new(Shared { seen: Mutex::new(seen), changed: Condvar::new() });
        let worker = Worker {
            shared: Arc::clone(&shared),
            input: Reader::new(stream.try_clone()?, memory.pages()),
            output: Writer::new(stream.try_clone()?),
            memory: Arc::clone(memory),
            counters: Arc::clone(counters),
            answers,
        };
        let thread = Builder::new().name("fault-server".into()).spawn(move || worker.run());
        let thread =
            thread.map_err(|source| Error::System { what: "starting the fault server".into(), source })?;
        Ok(Self { shared, stream: stream.try_clone()?, thread: Some(thread) })
    }

    /// Adds the pages that were asked for since the last call; an error if the channel was lost.
    pub(super) fn take_asked(&self, asked: &mut Vec<u64>) -> Result<()> {
        let mut seen = self.shared.lock();
        asked.append(&mut seen.asked);
        match &seen.failure {
            None => Ok(()),
            Some(why) => Err(Error::link(why.clone())),
        }
    }

    /// Lets at most so long pass; less if a page is asked for that nobody has sent.
    pub(super) fn wait_asked(&self, most: Duration) {
        let seen = self.shared.lock();
        let idle = |seen: &mut Seen| seen.asked.is_empty() && seen.failure.is_none();
        drop(self.shared.changed.wait_timeout_while(seen, most, idle));
    }

    /// Waits for the word that all pages are there; an error if the channel was lost, or if nothing was
    /// placed for `stall`.
    pub(super) fn wait_complete(&self, stall: Duration) -> Result<Box<Faults>> {
        let mut seen = self.shared.lock();
        // What is on its way has only begun to be waited for.
        seen.progress = Instant::now();
        loop {
            if let Some(faults) = seen.complete.take() {
                return Ok(faults);
            }
            if let Some(why) = &seen.failure {
                return Err(Error::link(why.clone()));
            }
            if seen.progress.elapsed() > stall {
                return Err(Error::link(format!(
                    "the destination has placed no page for {} s although all were sent",
                    stall.as_secs_f64()
                )));
            }
            let waited = self.shared.changed.wait_timeout(seen, stall / 8);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether that word has come.
    pub(super) fn is_complete(&self) -> bool {
        self.shared.lock().complete.is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is closed already needs no closing.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // What it met is in its failure.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    input: Reader<Stream>,
    output: Writer<Stream>,
    memory: Arc<GuestMemory>,
    counters: Arc<Counters>,
    answers: bool,
}

impl Worker {
    fn run(mut self) {
        run_soon();
        let Err(error) = self.serve();
        self.shared.change(|seen| seen.failure = Some(error.to_string()));
    }

    fn serve(&mut self) -> Result<std::convert::Infallible> {
        loop {
            match self.input.message()? {
                Message::Request { page } => self.answer(page)?,
                Message::Beat(beat) => {
                    self.output.message(&Message::Beat(Beat::default()))?;
                    self.shared.change(|seen| {
                        if seen.beat.placed != beat.placed {
                            seen.progress = Instant::now();
                        }
                        seen.beat = beat;
                    });
                    self.counters.milestones().extend(beat.guest);
                    *self.counters.beat.lock().unwrap_or_else(PoisonError::into_inner) = beat;
                }
                Message::Complete { faults } => self.shared.change(|seen| seen.complete = Some(faults)),
                other => {
                    return Err(Error::link(format!("{} came over the channel of faults", other.name())))
                }
            }
        }
    }

    fn answer(&mut self, page: u64) -> Result<()> {
        if page >= self.memory.pages() {
            return Err(Error::link(format!("page {page} of {} was asked for", self.memory.pages())));
        }
        if self.answers {
            self.send(page)?;
            // Who pushes looks before each push: woken for every fault, it would take a processor from the lane.
            self.shared.lock().asked.push(page);
        } else {
            self.shared.change(|seen| seen.asked.push(page));
        }
        Ok(())
    }

    fn send(&mut self, page: u64) -> Result<()> {
        let (before, runs) = (self.output.sent(), [Run { first: page, pages: 1 }]);
        match self.memory.is_zero(page) {
            true => {
                self.output.zeros(&runs)?;
                self.counters.zero_pages.fetch_add(1, Relaxed);
            }
            false => {
                // Copied and sent in one piece: a page fits a buffer of the socket.
                let mut bytes = [0; PAGE];
                self.memory.read_page(page, &mut bytes);
                self.output.copied_pages(&bytes, &runs)?;
            }
        }
        self.counters.pages.fetch_add(1, Relaxed);
        self.counters.bytes.fetch_add(self.output.sent() - before, Relaxed);
        Ok(())
    }
}
