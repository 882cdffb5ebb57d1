//! A RAM block: a named contiguous mapping that guest threads write while others read it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Where a block's bytes live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// A sealed-size memfd, shared: another mapping of it sees the same bytes.
    Memfd,
}

/// Whether 2 MiB pages are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// 4 KiB pages only: transparent huge pages are switched off for the block.
    #[default]
    Never,
    /// Transparent huge pages where the kernel finds them.
    Transparent,
    /// Reserved 2 MiB pages (hugetlb): the system must have them set aside.
    Explicit,
}

/// What a RAM block is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// Unique within the guest; 1 to 255 bytes.
    pub name: String,
    /// A multiple of 4096 (of 2 MiB with explicit huge pages).
    pub bytes: u64,
    /// Where its bytes live.
    #[serde(default)]
    pub backing: Backing,
    /// Page size asked for.
    #[serde(default)]
    pub huge: HugePages,
}

impl BlockSpec {
    /// A block of anonymous 4 KiB pages.
    pub fn new(name: &str, bytes: u64) -> Self {
        Self { name: name.to_owned(), bytes, backing: Backing::default(), huge: HugePages::default() }
    }

    fn validate(&self) -> Result<usize> {
        let wrong = |why: String| Err(Error::usage(format!("RAM block `{}`: {why}", self.name)));
        if self.name.is_empty() || self.name.len() > 255 {
            return wrong("its name must have 1 to 255 bytes".into());
        }
        let unit = if self.huge == HugePages::Explicit { 2 << 20 } else { PAGE as u64 };
        if self.bytes == 0 || self.bytes % unit != 0 {
            return wrong(format!(
                "its size must be a positive multiple of {unit} bytes, not {}",
                self.bytes
            ));
        }
        usize::try_from(self.bytes).or_else(|_| wrong("it is larger than the address space".into()))
    }
}

/// A mapped RAM block.
#[derive(Debug)]
pub struct RamBlock {
    spec: BlockSpec,
    base: NonNull<u8>,
    len: usize,
    fd: Option<OwnedFd>,
    first_page: u64,
}

// SAFETY: the mapping is owned, stays where it is until drop, and is only reached through raw copies
// that tolerate concurrent writers.
unsafe impl Send for RamBlock {}
// SAFETY: as above; nothing hands out references into the mapping.
unsafe impl Sync for RamBlock {}

impl RamBlock {
    /// Maps the block; `first_page` is its place in the guest's page numbering.
    pub(super) fn map(spec: BlockSpec, first_page: u64) -> Result<Self> {
        let len = spec.validate()?;
        let fd = match spec.backing {
            Backing::Anonymous => None,
            Backing::Memfd => Some(memfd(&spec, len)?),
        };
        let base = map(&spec, len, fd.as_ref())?;
        let block = Self { spec, base, len, fd, first_page };
        block.advise_page_size();
        Ok(block)
    }

    fn advise_page_size(&self) {
        let advice = match self.spec.huge {
            HugePages::Never => libc::MADV_NOHUGEPAGE,
            HugePages::Transparent => libc::MADV_HUGEPAGE,
            HugePages::Explicit => return,
        };
        // SAFETY: the range is ours; advice does not change contents. A kernel without huge pages
        // refuses it, which leaves 4 KiB pages: what was asked for, or as near as it has.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) };
    }

    /// Its name, unique within the guest.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &BlockSpec {
        &self.spec
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Its size in pages.
    pub fn pages(&self) -> u64 {
        (self.len / PAGE) as u64
    }

    /// The guest-wide number of its first page.
    pub fn first_page(&self) -> u64 {
        self.first_page
    }

    /// Where it is mapped. Guest threads write here at any time: read and write by raw copies only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The memfd behind it, if it has one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(OwnedFd::as_fd)
    }

    /// Makes every page present and writable, so that no later write waits for the kernel to find
    /// memory. Fails where the machine has too little.
    pub fn populate(&self) -> Result<()> {
        // SAFETY: the range is ours; populating keeps contents.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) } {
            0 => Ok(()),
            _ => Err(Error::last_os(format!("populating RAM block `{}`", self.name()))),
        }
    }
}

impl Drop for RamBlock {
    fn drop(&mut self) {
        // SAFETY: base and len are those of our mmap, and nobody else can reach the block any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn memfd(spec: &BlockSpec, len: usize) -> Result<OwnedFd> {
    let mut flags = libc::MFD_CLOEXEC;
    if spec.huge == HugePages::Explicit {
        flags |= libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    }
    // SAFETY: the name is a NUL-terminated literal.
    let raw = unsafe { libc::memfd_create(c"switchover-ram".as_ptr(), flags) };
    if raw < 0 {
        return Err(Error::last_os(format!("memfd_create for RAM block `{}`", spec.name)));
    }
    // SAFETY: a descriptor that the kernel just gave us and nobody else has.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: plain call on our descriptor; len fits off_t since validate() bounded it to usize.
    if unsafe { libc::ftruncate(raw, len as libc::off_t) } != 0 {
        return Err(Error::last_os(format!("sizing RAM block `{}`", spec.name)));
    }
    Ok(fd)
}

fn map(spec: &BlockSpec, len: usize, fd: Option<&OwnedFd>) -> Result<NonNull<u8>> {
    use std::os::fd::AsRawFd;
    let (mut flags, raw) = match fd {
        Some(fd) => (libc::MAP_SHARED, fd.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    match spec.huge {
        HugePages::Explicit if fd.is_none() => flags |= libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
        HugePages::Explicit => {}
        _ => flags |= libc::MAP_NORESERVE,
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, raw, 0) };
    if base == libc::MAP_FAILED {
        let hint = if spec.huge == HugePages::Explicit {
            "; set 2 MiB pages aside in /proc/sys/vm/nr_hugepages"
        } else {
            ""
        };
        return Err(Error::last_os(format!("mapping {len} bytes for RAM block `{}`{hint}", spec.name)));
    }
    NonNull::new(base.cast()).ok_or_else(|| Error::usage("the kernel mapped a block at address 0"))
}
