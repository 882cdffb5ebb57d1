//! The source of a guest that moves ahead of its memory.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use super::super::lane::{self, Job};
use super::super::Source;
use super::server::Server;
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::link::Stream;
use crate::report::{Faults, Happening};
use crate::wire::{Message, Milestone, PageSet};
use crate::world::World;

/// How long nothing is pushed where there is nothing to push.
const MOMENT: Duration = Duration::from_millis(1);

/// What a source knows of a guest that is ahead of its memory.
#[derive(Debug, Default)]
pub(in super::super) struct Ahead {
    /// What stayed behind; empty before execution moves.
    missing: Option<Bitmap>,
    server: Option<Server>,
    pub(in super::super) faults: Option<Box<Faults>>,
}

impl Ahead {
    /// Whether execution was to move ahead.
    pub(in super::super) fn has_begun(&self) -> bool {
        self.missing.is_some()
    }

    fn server(&self) -> Result<&Server> {
        self.server.as_ref().ok_or_else(|| Error::link("there is no channel of faults"))
    }
}

impl Source {
    fn start_server(&mut self) -> Result<()> {
        let Some(stream) = &self.fault_channel else {
            return Err(Error::usage(
                "there is no channel for remote faults: this strategy was not announced when the channels \
                 were opened (Sending::departure)",
            ));
        };
        let answers = !self.sending.one_stream;
        self.ahead.server = Some(Server::start(stream, self.guest.memory(), &self.counters, answers)?);
        Ok(())
    }

    /// Hands execution over; `missing` stays.
    pub(in super::super) fn move_ahead(&mut self, missing: &Bitmap) -> Result<()> {
        let (paused, copied) = (self.figures.paused_at, self.now());
        self.figures.parts.last_pages = self.phase(paused) - self.figures.parts.stop;
        self.start_server()?;
        let pages = PageSet::of(missing);
        self.hand_over(Some(Message::Missing { pages, verify: self.sending.verify }))?;
        self.mark(Happening::Acknowledged);
        self.figures.parts.acknowledge = self.phase(copied);
        if self.sending.verify {
            let began = self.now();
            let mut present = Bitmap::full(missing.pages());
            present.subtract(missing);
            self.verify(&present, "the guest stays at the source")?;
            self.figures.verify_time = self.phase(began);
        }
        self.ahead.missing = Some(missing.clone());
        lane::settle(&mut self.lanes)?;
        let began = self.now();
        // The point of no return: once the word may have gone out, the guest never runs here again.
        self.let_go = true;
        self.go()?;
        self.figures.parts.resume = self.phase(began);
        self.figures.sender_pause = Some(self.phase(paused) - self.figures.verify_time);
        self.tracker.disarm();
        Ok(())
    }

    /// Tells the destination to run the guest, and waits for the word that it does.
    fn go(&mut self) -> Result<()> {
        self.tell(Message::Go)?;
        match self.replies.message()? {
            Message::Running { first_ran_ns } => {
                self.figures.guest_gap = Some(self.gap_until(first_ran_ns));
                let operations = self.guest.progress().operations;
                self.counters.milestones().insert(0, Milestone { clock_ns: first_ran_ns, operations });
                self.mark(Happening::Resumed);
                Ok(())
            }
            other => Err(Error::link(format!("the destination answered {} to go", other.name()))),
        }
    }

    /// Pushes pages, and says what was asked for meanwhile.
    pub(in super::super) fn push_pages(&mut self, runs: &[Run], asked: &mut Vec<u64>) -> Result<()> {
        let first = asked.len();
        self.ahead.server()?.take_asked(asked)?;
        if self.sending.one_stream {
            for page in &asked[first..] {
                self.lanes[0].send(Job::Push(vec![Run { first: *page, pages: 1 }]))?;
            }
        }
        std::thread::sleep(self.pace.ahead(self.counters.sent().bytes));
        for (group, runs) in super::super::channels::by_group(runs, self.lanes.len() as u64) {
            self.lanes[group as usize].send(Job::Push(runs))?;
        }
        Ok(())
    }

    /// Lets a moment pass, or less if a page is asked for.
    pub(in super::super) fn serve_faults(&mut self, asked: &mut Vec<u64>) -> Result<()> {
        self.ahead.server()?.wait_asked(MOMENT);
        self.push_pages(&[], asked)
    }

    /// Waits until all is there, compares if asked, and lets the destination be.
    pub(in super::super) fn finish_ahead(&mut self) -> Result<()> {
        lane::settle(&mut self.lanes)?;
        self.figures.last_page = self.phase(Duration::ZERO);
        let verified = match self.sending.one_stream {
            // Pages may be asked for until the last is there, and nobody else sends them.
            true => self.push_until_complete(),
            false => self.ahead.server()?.wait_complete(self.sending.stall),
        }
        .and_then(|faults| {
            self.ahead.faults = Some(faults);
            self.figures.total = self.phase(Duration::ZERO);
            self.mark(Happening::Completed);
            self.verify_placed()
        });
        if matches!(verified, Ok(()) | Err(Error::Verification(_))) {
            self.ask_to_watch()?;
            // The destination closes the channel of faults when it has read this, and not before.
            self.tell(Message::Freed)?;
        }
        verified
    }

    fn push_until_complete(&mut self) -> Result<Box<Faults>> {
        loop {
            self.serve_faults(&mut Vec::new())?;
            let server = self.ahead.server()?;
            if server.is_complete() {
                return server.wait_complete(self.sending.stall);
            }
        }
    }

    fn verify_placed(&mut self) -> Result<()> {
        let Some(missing) = self.ahead.missing.clone().filter(|_| self.sending.verify) else { return Ok(()) };
        self.verify(&missing, "the guest runs at the destination")
    }

    /// Ends all channels, so that both sides know.
    pub(in super::super) fn cut(&mut self) {
        for end in self.ends.iter().chain(&self.fault_channel) {
            // One that is closed already needs no closing.
            let _ = end.shutdown(Shutdown::Both);
        }
        self.lanes.iter_mut().for_each(|lane| drop(lane.close()));
        self.ahead.server = None;
    }

    /// Goes on over other streams, as many as before, after the link was lost with the guest ahead. Fills in
    /// what the destination lacks. An error leaves all as it was, and may be followed by another attempt.
    pub fn reconnect(&mut self, streams: Vec<Stream>, missing: &mut Bitmap) -> Result<()> {
        self.cut();
        let channels = super::super::Channels::with_counters(
            self.guest.memory(),
            streams,
            &self.sending,
            Arc::clone(&self.counters),
        )?;
        self.lanes = channels.lanes;
        self.replies = channels.replies;
        self.ends = channels.ends;
        self.fault_channel = channels.faults;
        let greeted = self.regreet(missing);
        if greeted.is_err() {
            self.cut();
        }
        greeted
    }

    fn regreet(&mut self, missing: &mut Bitmap) -> Result<()> {
        self.say_hello(true)?;
        let (lacking, running) = match self.replies.message()? {
            Message::Lacking { pages, running } => (pages.checked(self.pages())?, running),
            other => return Err(Error::link(format!("the destination answered {} to hello", other.name()))),
        };
        if let Some(left) = &self.ahead.missing {
            // A page that came before execution moved may have been written since.
            let mut known = lacking.clone();
            known.intersect_with(left);
            if known != lacking {
                return Err(Error::link("the destination lacks pages that it had"));
            }
        }
        missing.union_with(&lacking);
        self.start_server()?;
        if !running || self.figures.guest_gap.is_none() {
            self.go()?;
        }
        Ok(())
    }
}
