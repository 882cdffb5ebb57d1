//! KVM's dirty log: a bitmap for each of a VM's slots of memory, which the kernel sets at a vCPU's first
//! write to a page that it protects. See `virt/kvm/api.rst` of the kernel, KVM_GET_DIRTY_LOG and
//! KVM_CLEAR_DIRTY_LOG.
//!
//! Since Linux 5.2 the log is read without clearing it, and cleared by ranges: the bits to be cleared are
//! given in a bitmap that starts at a multiple of 64 pages, so that no bit needs to be cleared that was
//! not asked for. Before, reading clears all, and what was not asked for is held here.
//!
//! It sees vCPUs only: neither threads of this process nor devices that a hypervisor emulates.

use std::ops::Range;
use std::sync::Arc;

use super::held::Held;
use super::{Track, Tracker};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::kvm::{self, Slot, Vm};
use crate::guest::GuestMemory;

const NAME: &str = "kvm-log";

crate::knobs! {
    /// KVM's dirty bitmap of a guest run by the workload kvm: one fault of the vCPU for each page and harvest.
    /// Sees the writes of vCPUs and no others, so it is for guests of that workload alone.
    pub struct KvmLog {
        /// Clear ranges by themselves, where the kernel can (Linux 5.2); if not, or where it cannot, each
        /// harvest reads and clears everything.
        by_range: bool [Flag] = true,
    }
}

/// An armed or unarmed tracker by KVM's dirty log.
#[derive(Debug)]
pub struct KvmLogTracker {
    knobs: KvmLog,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    /// With each VM whether its log is cleared by range.
    vms: Vec<(Arc<Vm>, bool)>,
    pages: u64,
    held: Held,
}

impl Track for KvmLog {
    type Tracker = KvmLogTracker;

    const SEES_ALL_WRITERS: bool = false;
    const ONLY_VCPUS: bool = true;

    fn probe() -> Result<()> {
        runs_guests(NAME)
    }

    fn build(self) -> Result<KvmLogTracker> {
        Ok(KvmLogTracker { knobs: self, armed: None })
    }
}

/// An error for tracker `name` where KVM does not work.
pub(super) fn runs_guests(name: &'static str) -> Result<()> {
    let probe = kvm::probe();
    match probe.works {
        true => Ok(()),
        false => Err(Error::TrackerUnavailable { tracker: name, reason: probe.reason.clone() }),
    }
}

/// The VMs of `memory`, if their vCPUs are all that writes to it; an error for tracker `name` if not.
pub(super) fn vms_of(memory: &GuestMemory, name: &'static str) -> Result<Vec<Arc<Vm>>> {
    let vms = memory.vms();
    let mut theirs = Bitmap::new(memory.pages());
    vms.iter().for_each(|vm| theirs.set_range(vm.pages()));
    let others = memory.pages() - theirs.count();
    if others == 0 {
        return Ok(vms);
    }
    let reason = match vms.is_empty() {
        true => {
            "this guest's writers are threads, not vCPUs of KVM: it sees the workload `kvm` only".to_owned()
        }
        false => format!(
            "{others} of this guest's {} pages belong to threads, not to vCPUs of KVM, and their writes \
             would be missed; give it workloads `kvm` only",
            memory.pages()
        ),
    };
    Err(Error::TrackerUnavailable { tracker: name, reason })
}

/// The kernel's log of one slot.
trait SlotLog {
    /// Pages that it has.
    fn pages(&self) -> u64;
    /// Reads all bits; clears them too, unless ranges are cleared by themselves.
    fn read(&self, words: &mut [u64]) -> Result<()>;
    /// Clears the bits set in `words`, which starts at page `first`, a multiple of 64, and ends at another
    /// or at the slot's end.
    fn clear(&self, first: u64, words: &[u64]) -> Result<()>;
}

impl SlotLog for (&Vm, &Slot) {
    fn pages(&self) -> u64 {
        self.1.range().end - self.1.range().start
    }

    fn read(&self, words: &mut [u64]) -> Result<()> {
        self.0.read_log(self.1, words)
    }

    fn clear(&self, first: u64, words: &[u64]) -> Result<()> {
        self.0.clear_log(self.1, first, words)
    }
}

fn read(log: &impl SlotLog) -> Result<Bitmap> {
    let mut words = vec![0; log.pages().div_ceil(64) as usize];
    log.read(&mut words)?;
    Bitmap::from_words(log.pages(), words)
}

/// Clears what is dirty of `asked`, pages of the slot, and no other bit; returns what was.
fn read_and_clear(log: &impl SlotLog, asked: Range<u64>) -> Result<Bitmap> {
    let mut dirty = read(log)?;
    dirty.clear_range(0..asked.start);
    dirty.clear_range(asked.end..log.pages());
    let words = dirty.words();
    let first = words.iter().position(|word| *word != 0);
    let last = words.iter().rposition(|word| *word != 0);
    if let Some((first, last)) = first.zip(last) {
        log.clear(first as u64 * 64, &words[first..=last])?;
    }
    Ok(dirty)
}

/// Adds what is dirty of `asked`, guest-wide, to `into`, clearing it or not. `first` is the slot's first
/// page there. What had to be cleared though nobody asked for it is held, with all that a peek finds where
/// reading clears.
fn scan(
    log: &impl SlotLog,
    (first, by_range): (u64, bool),
    (asked, clear): (&Range<u64>, bool),
    held: &mut Held,
    into: &mut Bitmap,
) -> Result<()> {
    let within = |page: u64| page.saturating_sub(first).min(log.pages());
    let local = within(asked.start)..within(asked.end);
    if local.is_empty() {
        return Ok(());
    }
    let dirty = match by_range && clear {
        true => read_and_clear(log, local.clone())?,
        false => read(log)?,
    };
    let found = |run: Run| run.first + first..run.end() + first;
    match by_range {
        true => dirty.runs_in(local).for_each(|run| into.set_range(found(run))),
        false => dirty.runs().for_each(|run| held.put(found(run), &(0..0), into)),
    }
    Ok(())
}

impl Armed {
    fn scan(&mut self, asked: Range<u64>, clear: bool, into: &mut Bitmap) -> Result<()> {
        let asked = asked.start..asked.end.min(self.pages);
        for (vm, by_range) in &self.vms {
            for slot in vm.slots() {
                let place = (slot.range().start, *by_range);
                scan(&(&**vm, slot), place, (&asked, clear), &mut self.held, into)?;
            }
        }
        match clear {
            true => self.held.take(&asked, into),
            false => self.held.peek(&asked, into),
        }
        Ok(())
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // A VM whose log cannot be switched off goes on being logged: slower, and nothing else.
        self.vms.iter().for_each(|(vm, _)| drop(vm.stop_log()));
    }
}

impl KvmLogTracker {
    fn armed(&mut self) -> Result<&mut Armed> {
        self.armed.as_mut().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Tracker for KvmLogTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        self.disarm();
        let vms = vms_of(memory, NAME)?;
        let held = Held::new(memory.pages());
        let mut armed = Armed { vms: Vec::new(), pages: memory.pages(), held };
        for vm in vms {
            let by_range = vm.start_log(self.knobs.by_range)?;
            armed.vms.push((vm, by_range));
        }
        self.armed = Some(armed);
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.armed()?.scan(pages, true, into)
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.armed()?.scan(pages, false, into)
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A kernel's log of one slot, which insists on its rules.
    struct Model {
        dirty: RefCell<BTreeSet<u64>>,
        pages: u64,
        by_range: bool,
    }

    impl SlotLog for Model {
        fn pages(&self) -> u64 {
            self.pages
        }

        fn read(&self, words: &mut [u64]) -> Result<()> {
            assert_eq!(words.len() as u64, self.pages.div_ceil(64));
            words.fill(0);
            self.dirty.borrow().iter().for_each(|page| words[(page / 64) as usize] |= 1 << (page % 64));
            if !self.by_range {
                self.dirty.borrow_mut().clear();
            }
            Ok(())
        }

        fn clear(&self, first: u64, words: &[u64]) -> Result<()> {
            assert!(self.by_range, "this kernel cannot");
            assert_eq!(first % 64, 0);
            assert!(first + (words.len() as u64 - 1) * 64 < self.pages, "past the end");
            let set = |page: &u64| words.get((page / 64) as usize).is_some_and(|w| w >> (page % 64) & 1 == 1);
            self.dirty.borrow_mut().retain(|page| *page < first || !set(&(page - first)));
            Ok(())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(Range<u64>),
        Harvest(Range<u64>),
        Peek(Range<u64>),
    }

    /// Two slots, neither a multiple of 64 pages, one behind the other.
    const SLOTS: [u64; 2] = [259, 131];
    const PAGES: u64 = SLOTS[0] + SLOTS[1];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let range = || (0..PAGES, 0..200u64).prop_map(|(first, n)| first..(first + n).min(PAGES));
        let step = prop_oneof![
            range().prop_map(Step::Write),
            range().prop_map(Step::Harvest),
            range().prop_map(Step::Peek)
        ];
        prop::collection::vec(step, 1..40)
    }

    fn ask(slots: &[Model], held: &mut Held, asked: &Range<u64>, clear: bool) -> BTreeSet<u64> {
        let (mut into, mut first) = (Bitmap::new(PAGES), 0);
        for slot in slots {
            scan(slot, (first, slot.by_range), (asked, clear), held, &mut into).unwrap();
            first += slot.pages;
        }
        match clear {
            true => held.take(asked, &mut into),
            false => held.peek(asked, &mut into),
        }
        into.runs().flat_map(|run| run.range()).collect()
    }

    fn write(slots: &[Model], page: u64) {
        let (slot, page) = if page < SLOTS[0] { (0, page) } else { (1, page - SLOTS[0]) };
        slots[slot].dirty.borrow_mut().insert(page);
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_set_whether_the_kernel_clears_them_or_all(steps in steps(), by_range: bool) {
            let slots = SLOTS.map(|pages| Model { dirty: RefCell::default(), pages, by_range });
            let (mut held, mut model) = (Held::new(PAGES), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Write(pages) => pages.for_each(|page| {
                        write(&slots, page);
                        model.insert(page);
                    }),
                    Step::Harvest(pages) => {
                        let expected: BTreeSet<_> = model.range(pages.clone()).copied().collect();
                        prop_assert_eq!(ask(&slots, &mut held, &pages, true), expected);
                        model.retain(|page| !pages.contains(page));
                    }
                    Step::Peek(pages) => {
                        let expected: BTreeSet<_> = model.range(pages.clone()).copied().collect();
                        prop_assert_eq!(ask(&slots, &mut held, &pages, false), expected);
                    }
                }
            }
        }
    }
}
