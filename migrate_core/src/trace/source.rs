//! What can be recorded: a guest of ours, or any process.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::bitmap::Bitmap;
use crate::codec::Page;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};
use crate::track::remote::{self, Life, Process};
use crate::track::Tracker;

/// Programs that a process may execute one after the other before its recording ends.
const MOST_PROGRAMS: u32 = 64;

/// Pages that a harvest found: a label, whether several places may bear it, and page numbers that are the
/// source's own.
pub type Stretch<'a> = (&'a str, bool, Range<u64>);

/// Something that writes memory and can be watched.
pub trait Source: Send {
    /// Reports what was written since the call before; at the first call, all that is in use. Answers why
    /// there is nothing more to come, if so.
    fn harvest(&mut self, found: &mut dyn FnMut(Stretch<'_>)) -> Result<Option<String>>;

    /// Reads a page; whether it is there.
    fn read(&self, page: u64, into: &mut Page) -> bool;

    /// Waits for so long, or until it has ended.
    fn wait(&self, time: Duration);

    /// The tracker's name.
    fn tracker(&self) -> &'static str;

    /// For how long it was stopped in order to be watched, in all, and how many times.
    fn stopped(&self) -> (Duration, u32) {
        (Duration::ZERO, 0)
    }

    /// Bytes that should have been watched and could not, at the last harvest.
    fn refused_bytes(&self) -> u64 {
        0
    }
}

/// A process, and the programs that it executes instead of itself.
#[derive(Debug)]
pub struct ProcessSource {
    process: Process,
    programs: u32,
    stopped: Duration,
}

impl ProcessSource {
    /// Attaches to process `pid`; see [`Process::attach`].
    pub fn attach(pid: i32) -> Result<Self> {
        let process = Process::attach(pid)?;
        Ok(Self { stopped: process.stopped().0, process, programs: 1 })
    }

    /// Attaches to the program that took the place of the one before. Why that cannot be, if so.
    fn follow(&mut self) -> Option<String> {
        if self.programs == MOST_PROGRAMS {
            return Some(format!("it executed {MOST_PROGRAMS} programs one after the other"));
        }
        match Process::attach(self.process.pid()) {
            Ok(process) => {
                self.stopped += process.stopped().0;
                self.process = process;
                self.programs += 1;
                None
            }
            Err(_) if self.process.wait(LEAVING) => Some(ENDED.into()),
            Err(e) => Some(format!("it executed another program, which cannot be watched: {e}")),
        }
    }
}

/// Between the moment in which a process that ends gives its memory up, which looks like the execution of
/// another program, and its end.
const LEAVING: Duration = Duration::from_secs(2);
const ENDED: &str = "the process ended";

impl Source for ProcessSource {
    fn harvest(&mut self, found: &mut dyn FnMut(Stretch<'_>)) -> Result<Option<String>> {
        let mut prefixed = String::new();
        loop {
            let number = self.programs;
            let life = self.process.harvest(&mut |seen| {
                if number == 1 {
                    return found((seen.label, seen.several, seen.pages));
                }
                // The addresses of another program say nothing about those of the first.
                prefixed.clear();
                prefixed.push_str(&format!("{number}:{}", seen.label));
                found((&prefixed, seen.several, seen.pages));
            })?;
            let end = match life {
                Life::Runs => return Ok(None),
                Life::Ended => Some(ENDED.into()),
                Life::Replaced => self.follow(),
            };
            if end.is_some() {
                return Ok(end);
            }
        }
    }

    fn read(&self, page: u64, into: &mut Page) -> bool {
        self.process.read(page, into)
    }

    fn wait(&self, time: Duration) {
        self.process.wait(time);
    }

    fn tracker(&self) -> &'static str {
        remote::NAME
    }

    fn stopped(&self) -> (Duration, u32) {
        (self.stopped, self.programs)
    }

    fn refused_bytes(&self) -> u64 {
        self.process.refused_bytes()
    }
}

/// What holds a guest's writers still while it lives, or nothing where there is no need.
pub type Pause = Box<dyn FnMut(&mut dyn FnMut() -> Result<()>) -> Result<()> + Send>;

/// A guest of ours, through its tracker.
pub struct GuestSource {
    memory: Arc<GuestMemory>,
    tracker: Box<dyn Tracker>,
    /// Runs a harvest while the guest is paused; for trackers that need that.
    pause: Pause,
    dirty: Bitmap,
    begun: bool,
}

impl GuestSource {
    /// Arms `tracker` for the guest's memory. `pause` runs what it is given while the guest is paused.
    pub fn arm(memory: Arc<GuestMemory>, mut tracker: Box<dyn Tracker>, pause: Pause) -> Result<Self> {
        if tracker.wants_sent() {
            return Err(Error::usage(format!(
                "the tracker `{}` knows what was sent, not what was written: it cannot record",
                tracker.name()
            )));
        }
        tracker.arm(&memory)?;
        let dirty = Bitmap::new(memory.pages());
        Ok(Self { memory, tracker, pause, dirty, begun: false })
    }
}

impl Source for GuestSource {
    fn harvest(&mut self, found: &mut dyn FnMut(Stretch<'_>)) -> Result<Option<String>> {
        let Self { memory, tracker, pause, dirty, begun } = self;
        let pages = memory.pages();
        dirty.clear_all();
        let needs_pause = tracker.needs_pause();
        let mut harvest = || tracker.harvest(0..pages, dirty);
        match needs_pause {
            true => pause(&mut harvest)?,
            false => harvest()?,
        }
        if !std::mem::replace(begun, true) {
            dirty.set_range(0..pages);
        }
        for block in memory.blocks() {
            let of_block = block.first_page()..block.first_page() + block.pages();
            dirty.runs_in(of_block).for_each(|run| found((block.name(), false, run.range())));
        }
        Ok(None)
    }

    fn read(&self, page: u64, into: &mut Page) -> bool {
        self.memory.read(page * PAGE as u64, into);
        true
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn tracker(&self) -> &'static str {
        self.tracker.name()
    }
}
