//! The pager: guest threads that touch a page which is not there wait in the kernel until it is placed.
//!
//! Anonymous memory is watched for *missing* faults and filled by `UFFDIO_COPY`, which makes a page appear
//! with its content in one step: no thread ever sees half of one. Shared memory (memfd) is watched for
//! missing and *minor* faults: content is written to the file behind the mapping, out of the guest's sight,
//! and `UFFDIO_CONTINUE` then maps it. Reserved huge pages are refused: a fault there is 2 MiB, and both
//! sides count in pages of 4 KiB.
//!
//! Registering comes before discarding: in a watched mapping the kernel makes no huge page across a hole,
//! which would fill it with zeros behind our back.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ioctl::{call, number, Request, READS, WRITES};
use super::span;
use super::uffd::{
    descriptor, refused, stretch, Faults, Message, Negotiate, Register, Stretch, Unregister, EVENT_PAGEFAULT,
    GROUP,
};
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, HugePages, Layout, RamBlock, PAGE};

/// Minor faults of shared memory (Linux 5.14).
const MINOR_SHMEM: u64 = 1 << 10;
const MODE_MISSING: u64 = 1 << 0;
const MODE_MINOR: u64 = 1 << 2;

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct Zero {
    stretch: Stretch,
    mode: u64,
    zeroed: i64,
}

#[repr(C)]
struct Continue {
    stretch: Stretch,
    mode: u64,
    mapped: i64,
}

#[repr(C)]
struct Wake(Stretch);

// SAFETY: UFFDIO_COPY takes struct uffdio_copy; it reads `len` bytes at `from`, a live buffer of at least
// that size, and writes to pages of a RAM block's mapping that are not there yet.
unsafe impl Request for Copy {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x03, size_of::<Self>());
}
// SAFETY: UFFDIO_ZEROPAGE takes struct uffdio_zeropage; the range is in a RAM block's mapping.
unsafe impl Request for Zero {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x04, size_of::<Self>());
}
// SAFETY: UFFDIO_CONTINUE takes struct uffdio_continue; the range is in a RAM block's mapping.
unsafe impl Request for Continue {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x07, size_of::<Self>());
}
// SAFETY: UFFDIO_WAKE takes struct uffdio_range; the header declares it as written only.
unsafe impl Request for Wake {
    const NUMBER: u64 = number(WRITES, GROUP, 0x02, size_of::<Self>());
}

/// What the ioctls that place pages have in common: a range, and how much of it is done.
trait Placement: Request {
    fn over(at: u64, from: u64, len: u64) -> Self;
    fn done(&self) -> i64;
}

impl Placement for Copy {
    fn over(at: u64, from: u64, len: u64) -> Self {
        Self { to: at, from, len, mode: 0, copied: 0 }
    }
    fn done(&self) -> i64 {
        self.copied
    }
}

impl Placement for Zero {
    fn over(at: u64, _: u64, len: u64) -> Self {
        Self { stretch: Stretch { start: at, len }, mode: 0, zeroed: 0 }
    }
    fn done(&self) -> i64 {
        self.zeroed
    }
}

impl Placement for Continue {
    fn over(at: u64, _: u64, len: u64) -> Self {
        Self { stretch: Stretch { start: at, len }, mode: 0, mapped: 0 }
    }
    fn done(&self) -> i64 {
        self.mapped
    }
}

/// What becomes of a page that is there although it is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Present {
    /// It stays as it is.
    Kept,
    /// It is an error.
    Refused,
}

/// A memory whose missing pages are ours to place. Dropping it ends the watch and wakes who waits: a page
/// that never came then reads as zeros, so drop it only when all are there or the guest is lost.
#[derive(Debug)]
pub struct Pager {
    fd: OwnedFd,
    memory: Arc<GuestMemory>,
}

impl Pager {
    /// Watches all of `memory`. Pages that are there stay.
    ///
    /// # Errors
    /// [`Error::System`] that says what the kernel lacks; [`Error::Usage`] for reserved huge pages.
    pub fn new(memory: &Arc<GuestMemory>) -> Result<Self> {
        check_layout(&memory.layout())?;
        let unavailable = |source| Error::System {
            what:
                "post-copy needs userfaultfd with missing and minor faults (Linux 5.14; in a container the \
                   seccomp profile must allow it)"
                    .into(),
            source,
        };
        let fd = descriptor(Faults::UserAndKernel).map_err(unavailable)?;
        let shared = memory.blocks().iter().any(|block| block.fd().is_some());
        let features = if shared { MINOR_SHMEM } else { 0 };
        call(fd.as_fd(), &mut Negotiate::of(features)).map_err(unavailable)?;
        let pager = Self { fd, memory: Arc::clone(memory) };
        memory.blocks().iter().try_for_each(|block| pager.register(block))?;
        Ok(pager)
    }

    fn register(&self, block: &RamBlock) -> Result<()> {
        let mode = if block.fd().is_some() { MODE_MISSING | MODE_MINOR } else { MODE_MISSING };
        let stretch = stretch(block, &(0..block.pages()));
        let answer = call(self.fd.as_fd(), &mut Register { stretch, mode, ioctls: 0 });
        answer.map(drop).map_err(|e| refused("registering", block, e))
    }

    /// Throws `pages` away: whoever touches one waits until it is placed.
    pub fn discard(&self, pages: Range<u64>) -> Result<()> {
        self.memory.split(pages).try_for_each(|(block, pages)| match block.fd() {
            None => span::discard(block, &pages),
            Some(_) => span::remove(block, &pages),
        })
    }

    /// Adds to `pages` those that guest threads wait for. Does not block.
    pub fn read_faults(&self, pages: &mut Vec<u64>) -> Result<()> {
        let mut messages = [Message::default(); 16];
        let bytes = size_of_val(&messages);
        // SAFETY: the kernel fills whole messages into the array, at most its size; any bytes are valid.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), messages.as_mut_ptr().cast(), bytes) };
        match usize::try_from(read) {
            Ok(read) => {
                let messages = &messages[..read / size_of::<Message>()];
                let faults = messages.iter().filter(|m| m.event == EVENT_PAGEFAULT);
                pages.extend(faults.filter_map(|m| self.page_at(m.address)));
                Ok(())
            }
            Err(_) => match io::Error::last_os_error() {
                e if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
                e => Err(Error::System { what: "reading page faults".into(), source: e }),
            },
        }
    }

    fn page_at(&self, address: u64) -> Option<u64> {
        let holds = |block: &&RamBlock| span::addresses(block, &(0..block.pages())).contains(&address);
        let block = self.memory.blocks().iter().find(holds)?;
        Some(block.first_page() + span::pages(block, &(address..address)).start)
    }

    /// Places pages from `first` on with `contents`, whole pages, and lets go on who waits for them. Nobody
    /// else may place them meanwhile.
    ///
    /// # Errors
    /// One of them is there already, and may have been read or written: it is left as it is.
    pub fn place(&self, first: u64, contents: &[u8]) -> Result<()> {
        let pages = contents.len() / PAGE;
        let mut rest = contents;
        for (block, within) in self.memory.split(first..first + pages as u64) {
            let (piece, after) = rest.split_at((within.end - within.start) as usize * PAGE);
            rest = after;
            match block.fd() {
                None => self.run::<Copy>(block, &within, piece, Present::Refused)?,
                Some(fd) => {
                    write_at(fd, piece, within.start * PAGE as u64)?;
                    self.run::<Continue>(block, &within, &[], Present::Refused)?;
                }
            }
        }
        Ok(())
    }

    /// The same for pages of zeros.
    pub fn place_zeros(&self, pages: Range<u64>) -> Result<()> {
        let mut blocks = self.memory.split(pages);
        blocks.try_for_each(|(block, within)| self.run::<Zero>(block, &within, &[], Present::Refused))
    }

    /// Lets go on who waits for a page that is there: maps it if only that is missing.
    pub fn release(&self, page: u64) -> Result<()> {
        self.memory.split(page..page + 1).try_for_each(|(block, within)| {
            if block.fd().is_some() {
                self.run::<Continue>(block, &within, &[], Present::Kept)?;
            }
            let answer = call(self.fd.as_fd(), &mut Wake(stretch(block, &within)));
            answer.map(drop).map_err(|e| refused("waking waiters of", block, e))
        })
    }

    /// Makes a page that was there before the watch, but never filled, a page of zeros; one that is there
    /// stays as it is.
    pub fn fill_hole(&self, page: u64) -> Result<()> {
        self.memory.split(page..page + 1).try_for_each(|(block, within)| {
            // A page of a file that is there but not mapped gives EEXIST to zeros, and takes a continue.
            self.run::<Zero>(block, &within, &[], Present::Kept)
        })?;
        self.release(page)
    }

    /// Places a range piece by piece: the kernel stops where a page is there already, or for a moment where
    /// the address space is being changed.
    fn run<P: Placement>(
        &self,
        block: &RamBlock,
        within: &Range<u64>,
        contents: &[u8],
        present: Present,
    ) -> Result<()> {
        let span = span::addresses(block, within);
        let (mut at, len) = (0, span.end - span.start);
        while at < len {
            let from = if contents.is_empty() { 0 } else { contents.as_ptr() as u64 + at };
            let mut request = P::over(span.start + at, from, len - at);
            let result = call(self.fd.as_fd(), &mut request);
            let Err(error) = result else { return Ok(()) };
            if let Ok(done @ 1..) = u64::try_from(request.done()) {
                at += done;
                continue;
            }
            match error.raw_os_error() {
                Some(libc::EEXIST) if present == Present::Kept => at += PAGE as u64,
                Some(libc::EAGAIN) => std::thread::yield_now(),
                _ => return Err(refused("placing pages of", block, error)),
            }
        }
        Ok(())
    }
}

/// Refuses a guest whose pages cannot be placed one by one.
pub fn check_layout(layout: &Layout) -> Result<()> {
    match layout.blocks.iter().find(|block| block.huge == HugePages::Explicit) {
        None => Ok(()),
        Some(block) => Err(Error::usage(format!(
            "RAM block `{}` has reserved huge pages: post-copy moves pages of 4 KiB, and the kernel places \
             2 MiB at once there; use transparent huge pages, or pre-copy",
            block.name
        ))),
    }
}

impl AsFd for Pager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        for block in self.memory.blocks() {
            // A forked child may hold the descriptor: closing it would not end the watch.
            let _ = call(self.fd.as_fd(), &mut Unregister(stretch(block, &(0..block.pages()))));
        }
    }
}

fn write_at(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `len` bytes of a live slice.
        let n = unsafe {
            libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset as libc::off_t)
        };
        match usize::try_from(n) {
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                source => return Err(Error::System { what: "writing shared guest memory".into(), source }),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Backing, BlockSpec};

    fn memory(backing: Backing) -> Arc<GuestMemory> {
        let blocks = ["a", "b"].map(|name| BlockSpec { backing, ..BlockSpec::new(name, 1 << 20) }).to_vec();
        Arc::new(GuestMemory::new(&Layout { blocks }).unwrap())
    }

    /// Threads touch pages; a loop here places each once, with its number in it.
    fn serve(memory: &Arc<GuestMemory>, pager: &Pager, touched: &[u64]) -> Vec<u64> {
        let (mut seen, mut faults) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            let readers: Vec<_> = touched
                .iter()
                .map(|page| {
                    scope.spawn(move || {
                        let mut bytes = [0; 8];
                        memory.read(page * PAGE as u64 + 16, &mut bytes);
                        assert_eq!(u64::from_le_bytes(bytes), *page);
                        memory.write(page * PAGE as u64 + 4000, &[0xff]);
                    })
                })
                .collect();
            while !readers.iter().all(|reader| reader.is_finished()) {
                faults.clear();
                pager.read_faults(&mut faults).unwrap();
                for page in &faults {
                    if !seen.contains(page) {
                        seen.push(*page);
                        let mut bytes = [0; PAGE];
                        bytes[16..24].copy_from_slice(&page.to_le_bytes());
                        pager.place(*page, &bytes).unwrap();
                    }
                }
                std::thread::yield_now();
            }
        });
        seen.sort_unstable();
        seen
    }

    #[test]
    fn threads_wait_for_pages_and_go_on() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let memory = memory(backing);
            memory.write(7 * PAGE as u64, &[1; PAGE]);
            memory.write(300 * PAGE as u64, &[1; PAGE]);
            let pager = Pager::new(&memory).unwrap();
            pager.discard(0..512).unwrap();
            let touched = [7, 255, 256, 300, 300, 511];
            assert_eq!(serve(&memory, &pager, &touched), [7, 255, 256, 300, 511], "{backing:?}");
        }
    }

    #[test]
    fn a_page_that_is_there_is_never_placed_over() {
        let memory = memory(Backing::Anonymous);
        let pager = Pager::new(&memory).unwrap();
        pager.place(3, &[7; PAGE]).unwrap();
        memory.write(3 * PAGE as u64, &[9]);
        let refused = pager.place(2, &[5; 3 * PAGE]).unwrap_err().to_string();
        assert!(refused.contains("placing pages"), "{refused}");
        assert!(pager.place_zeros(3..5).is_err());
        pager.place(4, &[5; PAGE]).unwrap();
        pager.place_zeros(0..2).unwrap();
        pager.fill_hole(3).unwrap();
        let mut bytes = [0; PAGE];
        memory.read_page(3, &mut bytes);
        assert_eq!(bytes[..2], [9, 7]);
        memory.read_page(4, &mut bytes);
        assert_eq!(bytes[0], 5);
        assert!(memory.is_zero(0) && memory.is_zero(1));
    }

    #[test]
    fn holes_are_filled_and_mapped_pages_of_files_released() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let memory = memory(backing);
            memory.write(PAGE as u64, &[4]);
            let pager = Pager::new(&memory).unwrap();
            if backing == Backing::Memfd {
                // Unmaps the page and leaves it in the file: the next touch is a minor fault.
                span::discard(&memory.blocks()[0], &(1..2)).unwrap();
            }
            [0, 1].into_iter().for_each(|page| pager.fill_hole(page).unwrap());
            let mut byte = [0];
            memory.read(PAGE as u64, &mut byte);
            assert_eq!(byte, [4], "{backing:?}");
            assert!(memory.is_zero(0));
        }
    }

    #[test]
    fn reserved_huge_pages_are_refused() {
        let spec = BlockSpec { huge: HugePages::Explicit, ..BlockSpec::new("big", 2 << 20) };
        let error = check_layout(&Layout { blocks: vec![spec] }).unwrap_err().to_string();
        assert!(error.contains("`big`") && error.contains("reserved huge pages"), "{error}");
    }
}
