//! A VM on guest memory: one vCPU that runs in batches, and the log of what it wrote.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::{self, Cpu, Exit, Machine};
use super::program::{Registers, MOST_PAGES, RAM};
use super::ring::Ring;
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, RamBlock, Region, PAGE};

/// Writes of one batch at most: what a harvest of the ring, and a pause, may have to wait for.
pub const MOST_BATCH: u64 = 256;

/// Part of a RAM block as the VM has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// KVM's number of it.
    pub(super) id: u32,
    /// Guest-wide number of its first page.
    pub(super) first: u64,
    /// Its pages.
    pub(super) pages: u64,
    /// Guest-physical address.
    pub(super) guest: u64,
    /// Address in this process.
    pub(super) host: u64,
}

impl Slot {
    /// Its pages, guest-wide.
    pub fn range(&self) -> Range<u64> {
        self.first..self.first + self.pages
    }
}

/// How writes are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logging {
    Off,
    Bitmap,
    Ring,
}

#[derive(Debug)]
struct Log {
    machine: Machine,
    ring: Option<Ring>,
    ring_entries: u32,
    logging: Logging,
    /// Guest-wide pages that were collected from the ring and not harvested.
    collected: Bitmap,
    /// Times that the vCPU could not go on because the ring was full.
    ring_fulls: u64,
}

#[derive(Debug)]
struct Runner {
    cpu: Cpu,
    /// Ring entries that its writes may have taken since the ring was last emptied by this thread.
    pushed: u64,
}

/// A VM with one vCPU. Keeps the guest memory that it runs on.
///
/// Any thread may read the log while another runs the vCPU. Locks are taken in the order of the fields.
#[derive(Debug)]
pub struct Vm {
    /// Held by who waits for the vCPU to be between two batches, so that it does not start another.
    gate: Mutex<()>,
    runner: Mutex<Runner>,
    log: Mutex<Log>,
    slots: Vec<Slot>,
    pages: Range<u64>,
    code: RamBlock,
    memory: Arc<GuestMemory>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slots(region: &Region) -> Vec<Slot> {
    let (first, end) = (region.first_page(), region.first_page() + region.pages());
    let slot = |(id, (block, pages)): (u32, (&RamBlock, Range<u64>))| {
        let first_page = block.first_page() + pages.start;
        Slot {
            id,
            first: first_page,
            pages: pages.end - pages.start,
            guest: RAM + (first_page - first) * PAGE as u64,
            host: block.as_ptr() as u64 + pages.start * PAGE as u64,
        }
    };
    (1..).zip(region.memory().split(first..end)).map(slot).collect()
}

impl Vm {
    /// A VM whose RAM is `region`, and which that memory knows of from here on: trackers find it there.
    /// Fails where KVM does not work, and for a region of more than 2047 MiB or with another VM in it.
    pub fn new(region: &Region) -> Result<Arc<Self>> {
        if region.pages() > MOST_PAGES {
            let (bytes, most) = (region.bytes(), MOST_PAGES * PAGE as u64);
            return Err(Error::usage(format!("a KVM guest has {most} bytes of RAM at most, not {bytes}")));
        }
        let code = machine::code()?;
        let slots = slots(region);
        let (machine, cpu, ring) = machine::make(&code, &slots, 0)?;
        let collected = Bitmap::new(region.memory().pages());
        let vm = Arc::new(Self {
            gate: Mutex::new(()),
            runner: Mutex::new(Runner { cpu, pushed: 0 }),
            log: Mutex::new(Log {
                machine,
                ring,
                ring_entries: 0,
                logging: Logging::Off,
                collected,
                ring_fulls: 0,
            }),
            slots,
            pages: region.first_page()..region.first_page() + region.pages(),
            code,
            memory: Arc::clone(region.memory()),
        });
        region.memory().attach_vm(&vm)?;
        Ok(vm)
    }

    /// The pages that its vCPU can write, guest-wide.
    pub fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }

    /// Its RAM, by parts of RAM blocks; each has a dirty log of its own.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Runs the program from `registers` for `writes` page writes, at most [`MOST_BATCH`] at a time.
    /// An error means that the guest is not to be run on.
    pub fn run(&self, registers: &mut Registers, writes: u64) -> Result<()> {
        registers.validate(self.pages.end - self.pages.start)?;
        let mut left = writes;
        while left > 0 {
            let batch = left.min(MOST_BATCH);
            self.run_batch(registers, batch)?;
            left -= batch;
        }
        Ok(())
    }

    fn run_batch(&self, registers: &mut Registers, writes: u64) -> Result<()> {
        drop(lock(&self.gate));
        let mut runner = lock(&self.runner);
        self.make_room(&mut runner, writes)?;
        let (pages, from) = (self.pages.end - self.pages.start, *registers);
        runner.cpu.load(&from.load(pages, writes))?;
        let mut fulls = 0;
        while runner.cpu.run()? == Exit::RingFull {
            // Each of these exits follows at least one write, but for one left over from before.
            fulls += 1;
            if fulls > writes + 1 {
                return Err(Error::usage("KVM's dirty ring stays full after it was emptied"));
            }
            lock(&self.log).relieve(&self.slots)?;
        }
        registers.store(&runner.cpu.registers()?, pages, writes)?;
        let written = (0..writes).map(|i| self.pages.start + (from.page + i * from.stride) % pages);
        written.for_each(|page| self.memory.mark(page..page + 1));
        Ok(())
    }

    /// Empties the ring if the batch might overflow it. The kernel's own exit comes in time only where it
    /// looks at the ring after every write: one that emulates goes on for hundreds of instructions, past
    /// the entries that it keeps in reserve, and overwrites the oldest.
    fn make_room(&self, runner: &mut Runner, writes: u64) -> Result<()> {
        let mut log = lock(&self.log);
        if log.ring.is_none() {
            return Ok(());
        }
        if runner.pushed + writes > u64::from(log.ring_entries) {
            log.empty_ring(&self.slots)?;
            runner.pushed = 0;
        }
        runner.pushed += writes;
        Ok(())
    }

    /// Waits until the vCPU is between two batches, and keeps it there.
    fn between_batches(&self) -> MutexGuard<'_, Runner> {
        let _gate = lock(&self.gate);
        lock(&self.runner)
    }

    /// Begins to log writes in a bitmap a slot, all clean. `by_range` asks that [`Vm::read_log`] clears
    /// nothing; the answer is whether that is so, which older kernels cannot.
    pub fn start_log(&self, by_range: bool) -> Result<bool> {
        let mut runner = self.between_batches();
        let mut log = lock(&self.log);
        log.refuse_second()?;
        if log.ring.is_some() {
            self.make_anew(&mut runner, &mut log, 0)?;
        }
        let by_range = by_range && log.machine.clears_ranges();
        log.machine.log(&self.slots, true, by_range)?;
        log.logging = Logging::Bitmap;
        Ok(by_range)
    }

    /// Begins to log writes in a ring of `entries`, all clean. The kernel gives a ring only to a VM
    /// without vCPUs, so the VM is made anew: between batches its registers are with the host.
    pub fn start_ring(&self, entries: u32) -> Result<()> {
        let mut runner = self.between_batches();
        let mut log = lock(&self.log);
        log.refuse_second()?;
        self.make_anew(&mut runner, &mut log, entries)?;
        log.machine.log(&self.slots, true, false)?;
        log.logging = Logging::Ring;
        Ok(())
    }

    fn make_anew(&self, runner: &mut Runner, log: &mut Log, ring_entries: u32) -> Result<()> {
        let (machine, cpu, ring) = machine::make(&self.code, &self.slots, ring_entries)?;
        *runner = Runner { cpu, pushed: 0 };
        (log.machine, log.ring, log.ring_entries) = (machine, ring, ring_entries);
        log.collected.clear_all();
        Ok(())
    }

    /// Ends logging.
    pub fn stop_log(&self) -> Result<()> {
        let mut log = lock(&self.log);
        log.logging = Logging::Off;
        log.machine.log(&self.slots, false, false)
    }

    /// Reads the dirty bits of `slot`, a word for 64 pages counted from its first.
    pub fn read_log(&self, slot: &Slot, words: &mut [u64]) -> Result<()> {
        lock(&self.log).machine.read(slot, words)
    }

    /// Clears the bits of `slot` that are set in `words`, from page `first` of it, a multiple of 64.
    pub fn clear_log(&self, slot: &Slot, first: u64, words: &[u64]) -> Result<()> {
        lock(&self.log).machine.clear(slot, first, words)
    }

    /// Moves what the ring has logged of `pages` to `into`, and protects these and all other logged pages
    /// again; the others are kept for later.
    pub fn harvest_ring(&self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.flush();
        let mut log = lock(&self.log);
        log.empty_ring(&self.slots)?;
        log.collected.runs_in(pages.clone()).for_each(|run| into.set_range(run.range()));
        log.collected.clear_range(pages);
        Ok(())
    }

    /// Adds what the ring has logged of `pages` to `into`.
    pub fn peek_ring(&self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.flush();
        let mut log = lock(&self.log);
        log.collect(&self.slots)?;
        log.collected.runs_in(pages).for_each(|run| into.set_range(run.range()));
        Ok(())
    }

    /// Times so far that the vCPU had to stop because its ring was full.
    pub fn ring_fulls(&self) -> u64 {
        lock(&self.log).ring_fulls
    }

    /// Waits for the vCPU to leave the guest: hardware that logs for itself (Intel's PML) shows what it
    /// has only then. The vCPU goes on at once.
    fn flush(&self) {
        drop(self.between_batches());
    }
}

impl Log {
    fn refuse_second(&self) -> Result<()> {
        match self.logging {
            Logging::Off => Ok(()),
            by => Err(Error::usage(format!("this VM's writes are tracked already, by KVM's dirty {by:?}"))),
        }
    }

    /// Notes the ring's entries.
    fn collect(&mut self, slots: &[Slot]) -> Result<()> {
        let (Some(ring), collected, mut stray) = (&mut self.ring, &mut self.collected, None) else {
            return Ok(());
        };
        ring.collect(|id, page| match slots.iter().find(|slot| slot.id == id && page < slot.pages) {
            Some(slot) => collected.set(slot.first + page),
            None => stray = Some((id, page)),
        });
        match stray {
            None => Ok(()),
            Some((id, page)) => Err(Error::usage(format!(
                "KVM's dirty ring names page {page} of slot {id}, which is not there"
            ))),
        }
    }

    /// Empties a ring that is full.
    fn relieve(&mut self, slots: &[Slot]) -> Result<()> {
        self.ring_fulls += 1;
        self.empty_ring(slots)
    }

    /// Notes the ring's entries, then has their pages protected again. In this order: a page that is
    /// written in between is noted already, and its bytes are read later.
    fn empty_ring(&mut self, slots: &[Slot]) -> Result<()> {
        self.collect(slots)?;
        match self.ring {
            Some(_) => self.machine.reset_rings(),
            None => Ok(()),
        }
    }
}
