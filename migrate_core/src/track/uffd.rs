//! userfaultfd in write-protect mode. Numbers and layouts are those of `linux/userfaultfd.h`, which libc
//! does not have.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::ioctl::{call, number, Request, READS, WRITES};
use super::span;
use crate::error::{Error, Result};
use crate::guest::RamBlock;

/// Write-protect faults are reported as such.
pub(super) const FAULT_FLAG_WP: u64 = 1 << 0;
/// Write protection of shared memory and of reserved huge pages (Linux 5.19).
pub(super) const WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// Write protection of pages that are not there yet (Linux 6.4).
pub(super) const WP_UNPOPULATED: u64 = 1 << 13;
/// The kernel itself lifts the protection at the first write (Linux 6.7).
pub(super) const WP_ASYNC: u64 = 1 << 15;

pub(super) const GROUP: u8 = 0xAA;
const API: u64 = 0xAA;
const USER_MODE_ONLY: i32 = 1;
const MODE_WP: u64 = 1 << 1;
const PROTECT: u64 = 1 << 0;
pub(super) const EVENT_PAGEFAULT: u8 = 0x12;

#[repr(C)]
pub(super) struct Negotiate {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) len: u64,
}

#[repr(C)]
pub(super) struct Register {
    pub(super) stretch: Stretch,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

/// Also undoes a registration.
#[repr(C)]
pub(super) struct Unregister(pub(super) Stretch);

#[repr(C)]
struct WriteProtect {
    stretch: Stretch,
    mode: u64,
}

impl Negotiate {
    /// Asks for `features` of the one version of the interface that there is.
    pub(super) fn of(features: u64) -> Self {
        Self { api: API, features, ioctls: 0 }
    }
}

// SAFETY: UFFDIO_API takes struct uffdio_api; it touches nothing else.
unsafe impl Request for Negotiate {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x3F, size_of::<Self>());
}
// SAFETY: UFFDIO_REGISTER takes struct uffdio_register; the range is a RAM block's mapping, or memory
// of another process, which stays what it is.
unsafe impl Request for Register {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x00, size_of::<Self>());
}
// SAFETY: UFFDIO_UNREGISTER takes struct uffdio_range; the header declares it as written only.
unsafe impl Request for Unregister {
    const NUMBER: u64 = number(WRITES, GROUP, 0x01, size_of::<Self>());
}
// SAFETY: UFFDIO_WRITEPROTECT takes struct uffdio_writeprotect; the range is in a RAM block's
// mapping, or memory of another process, which only loses time.
unsafe impl Request for WriteProtect {
    const NUMBER: u64 = number(READS | WRITES, GROUP, 0x06, size_of::<Self>());
}

/// Whose writes a fault handler of ours must serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// Those of user code only: any user may ask for that.
    User,
    /// Also those of system calls that write guest memory, where we are allowed to.
    UserAndKernel,
}

/// A descriptor that was negotiated for write protection.
#[derive(Debug)]
pub(super) struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// Opens one with `features`; the error says what is missing and what would provide it.
    pub(super) fn open(features: u64, faults: Faults) -> std::result::Result<Self, String> {
        let fd = descriptor(faults).map_err(|e| {
            format!(
                "userfaultfd cannot be opened ({e}): the kernel needs CONFIG_USERFAULTFD, and a container's \
                 seccomp profile must allow the system call or the device /dev/userfaultfd"
            )
        })?;
        Self::adopt(fd, features)
    }

    /// Takes over a descriptor that was opened in whatever process, and that nobody has negotiated.
    pub(super) fn adopt(fd: OwnedFd, features: u64) -> std::result::Result<Self, String> {
        let mut negotiate = Negotiate::of(features);
        call(fd.as_fd(), &mut negotiate).map_err(|e| {
            let since = if features & WP_ASYNC != 0 { "6.7" } else { "6.4" };
            format!(
                "this kernel's userfaultfd cannot write-protect as needed ({e}): Linux {since} or later on \
                 x86-64 or arm64, with CONFIG_PTE_MARKER_UFFD_WP, can"
            )
        })?;
        Ok(Self { fd })
    }

    /// Begins to watch writes to the block; nothing is protected yet.
    pub(super) fn register(&self, block: &RamBlock) -> Result<()> {
        let stretch = stretch(block, &(0..block.pages()));
        let answer = call(self.fd.as_fd(), &mut Register { stretch, mode: MODE_WP, ioctls: 0 });
        answer.map(drop).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => Error::usage(format!(
                "RAM block `{}` is tracked by another userfaultfd already",
                block.name()
            )),
            _ => refused("registering", block, e),
        })
    }

    /// Begins to watch writes to `addresses` of the process that the descriptor is of. Refused where there is
    /// no mapping, one that cannot be watched, or one that another userfaultfd watches (`EBUSY`).
    pub(super) fn register_addresses(&self, addresses: &Range<u64>) -> io::Result<()> {
        call(self.fd.as_fd(), &mut Register { stretch: between(addresses), mode: MODE_WP, ioctls: 0 })
            .map(drop)
    }

    /// Protects registered `addresses` of that process against writing; a huge page that they do not cover
    /// is cut.
    pub(super) fn protect_addresses(&self, addresses: &Range<u64>) -> io::Result<()> {
        call(self.fd.as_fd(), &mut WriteProtect { stretch: between(addresses), mode: PROTECT }).map(drop)
    }

    /// Ends it; all protection goes, and blocked writers go on.
    pub(super) fn unregister(&self, block: &RamBlock) -> Result<()> {
        let answer = call(self.fd.as_fd(), &mut Unregister(stretch(block, &(0..block.pages()))));
        answer.map(drop).map_err(|e| refused("unregistering", block, e))
    }

    /// Protects pages of the block against writing, or lifts that and wakes who waited for it. When it
    /// returns, no CPU holds an older translation.
    pub(super) fn protect(&self, block: &RamBlock, pages: &Range<u64>, on: bool) -> Result<()> {
        loop {
            let mode = if on { PROTECT } else { 0 };
            let mut request = WriteProtect { stretch: stretch(block, pages), mode };
            match call(self.fd.as_fd(), &mut request) {
                Ok(_) => return Ok(()),
                // The address space is being changed by another thread: it is over in a moment.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => return Err(refused("write-protecting", block, e)),
            }
        }
    }

    /// Adds to `addresses` where writers wait; empty if none does. Does not block.
    pub(super) fn read_faults(&self, addresses: &mut Vec<u64>) -> Result<()> {
        let mut messages = [Message::default(); 16];
        let bytes = size_of_val(&messages);
        // SAFETY: the kernel fills whole messages into the array, at most its size; any bytes are valid.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), messages.as_mut_ptr().cast(), bytes) };
        match usize::try_from(read) {
            Ok(read) => {
                let messages = &messages[..read / size_of::<Message>()];
                let faults = messages.iter().filter(|m| m.event == EVENT_PAGEFAULT);
                addresses.extend(faults.map(|m| m.address));
                Ok(())
            }
            Err(_) => match io::Error::last_os_error() {
                e if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
                e => Err(Error::System { what: "reading write faults".into(), source: e }),
            },
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `struct uffd_msg` as it is for a page fault.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Message {
    pub(super) event: u8,
    reserved: [u8; 7],
    pub(super) flags: u64,
    pub(super) address: u64,
    thread: u64,
}

pub(super) fn stretch(block: &RamBlock, pages: &Range<u64>) -> Stretch {
    between(&span::addresses(block, pages))
}

fn between(addresses: &Range<u64>) -> Stretch {
    Stretch { start: addresses.start, len: addresses.end.saturating_sub(addresses.start) }
}

pub(super) fn refused(what: &str, block: &RamBlock, source: io::Error) -> Error {
    Error::System { what: format!("{what} RAM block `{}` with userfaultfd", block.name()), source }
}

pub(super) fn descriptor(faults: Faults) -> io::Result<OwnedFd> {
    match faults {
        Faults::User => by_call(USER_MODE_ONLY).or_else(|first| by_device(USER_MODE_ONLY).map_err(|_| first)),
        Faults::UserAndKernel => by_call(0).or_else(|_| by_device(0)).or_else(|_| by_call(USER_MODE_ONLY)),
    }
}

fn by_call(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes flags only.
    let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, flags | libc::O_CLOEXEC | libc::O_NONBLOCK) };
    owned(raw)
}

fn by_device(flags: i32) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: USERFAULTFD_IOC_NEW takes flags by value.
    let raw = unsafe { libc::ioctl(device.as_raw_fd(), number(0, GROUP, 0, 0) as _, flags) };
    owned(raw.into())
}

fn owned(raw: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(raw) {
        // SAFETY: a descriptor that the kernel just gave us and nobody else has.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(io::Error::last_os_error()),
    }
}
