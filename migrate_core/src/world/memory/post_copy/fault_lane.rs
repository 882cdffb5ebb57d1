//! The destination's thread for remote faults: from the kernel to the source and back.

use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::arrival::take_pages;
use super::landing::Landing;
use super::log::By;
use crate::error::{Error, Result};
use crate::guest::{monotonic_ns, Tally};
use crate::link::Stream;
use crate::track::run_soon;
use crate::wire::{Beat, Message, Milestone, Reader, Section, Writer};

/// How long a page that is being placed is left alone before it is looked at again.
const MOMENT: Duration = Duration::from_millis(1);

/// The channel of faults, at the destination.
pub(super) struct FaultLane<'a> {
    landing: &'a Landing,
    tally: Tally,
    input: Reader<Stream>,
    output: Writer<Stream>,
    stall: Duration,
    /// Pages that another thread was placing when the kernel told of them.
    deferred: Vec<u64>,
    heard: Instant,
    beaten: Instant,
    completed: bool,
}

impl<'a> FaultLane<'a> {
    pub(super) fn new(
        landing: &'a Landing,
        tally: Tally,
        input: Reader<Stream>,
        stall: Duration,
    ) -> Result<Self> {
        let output = Writer::new(input.stream().try_clone()?);
        let now = Instant::now();
        Ok(Self {
            landing,
            tally,
            input,
            output,
            stall,
            deferred: Vec::new(),
            heard: now,
            beaten: now,
            completed: false,
        })
    }

    /// Serves faults until the link is lost, which the end of a migration is too.
    pub(super) fn run(mut self) -> Result<()> {
        run_soon();
        let open = self.landing.log().open();
        for page in open {
            self.output.message(&Message::Request { page })?;
        }
        let mut faults = Vec::new();
        loop {
            let (kernel, source, done) = self.wait()?;
            if kernel || !self.deferred.is_empty() {
                faults.clear();
                faults.append(&mut self.deferred);
                self.landing.pager().read_faults(&mut faults)?;
                let noticed = Instant::now();
                faults.iter().try_for_each(|page| self.fault(*page, noticed))?;
            }
            if source {
                self.hear()?;
            }
            if done && !self.completed {
                self.completed = true;
                self.beat()?;
                let faults = Box::new(self.landing.log().figures());
                self.output.message(&Message::Complete { faults })?;
            }
            self.listen()?;
        }
    }

    fn beat_interval(&self) -> Duration {
        (self.stall / 8).clamp(MOMENT, Duration::from_millis(100))
    }

    /// Waits for the kernel, the source, or the last page.
    fn wait(&self) -> Result<(bool, bool, bool)> {
        let limit = if self.deferred.is_empty() { self.beat_interval() } else { MOMENT };
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let mut polled = [
            PollFd::new(self.landing.pager(), PollFlags::IN),
            PollFd::new(self.input.stream(), PollFlags::IN),
            PollFd::new(self.landing.done(), PollFlags::IN),
        ];
        // Once told, the event stays readable: it must not wake us again.
        let watched = if self.completed { 2 } else { 3 };
        match poll(&mut polled[..watched], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::System { what: "waiting for page faults".into(), source: e.into() }),
        }
        let [kernel, source, done] = polled.map(|fd| !fd.revents().is_empty());
        Ok((kernel, source, done))
    }

    /// A guest thread waits for `page`.
    fn fault(&mut self, page: u64, noticed: Instant) -> Result<()> {
        if !self.landing.missing().contains(page) {
            // It came as zeros before execution moved, and was never touched.
            self.landing.log().filled();
            return self.landing.pager().fill_hole(page);
        }
        if self.landing.is_placed(page) {
            return self.landing.pager().release(page);
        }
        if !self.landing.is_absent(page) {
            // A thread is placing it, and will wake who waits; unless it was quicker than the kernel's word.
            self.deferred.push(page);
            return Ok(());
        }
        if self.landing.log().is_open(page) {
            return Ok(());
        }
        self.output.message(&Message::Request { page })?;
        let asked = Instant::now();
        let mut log = self.landing.log();
        log.asked(page, noticed, asked);
        if self.landing.is_placed(page) {
            // The push was quicker than our note of it.
            log.placed(page, asked, By::Push);
        }
        Ok(())
    }

    /// Takes one section from the source.
    fn hear(&mut self) -> Result<()> {
        let section = self.input.section()?;
        self.heard = Instant::now();
        match section {
            Section::Message(Message::Beat(_)) => Ok(()),
            Section::Message(other) => {
                Err(Error::link(format!("{} came over the channel of faults", other.name())))
            }
            pages => take_pages(&mut self.input, pages, self.landing, By::Request, &mut Vec::new()),
        }
    }

    /// Gives a sign of life when it is time for one, if the source gives its own.
    fn listen(&mut self) -> Result<()> {
        if self.heard.elapsed() > self.stall {
            return Err(Error::link(format!("the source was silent for {} s", self.stall.as_secs_f64())));
        }
        if self.beaten.elapsed() >= self.beat_interval() {
            self.beat()?;
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<()> {
        self.beaten = Instant::now();
        let guest = self.tally.operations();
        let guest = guest.map(|operations| Milestone { clock_ns: monotonic_ns(), operations });
        let beat = Beat { guest, ..self.landing.log().beat(self.landing.placed()) };
        self.output.message(&Message::Beat(beat))
    }
}
