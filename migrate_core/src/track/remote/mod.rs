//! Tracking writes of **another process**, any that runs, without its taking part.
//!
//! The process is stopped for a moment, opens a userfaultfd of its own memory at our bidding (`inject`), and
//! goes on; the descriptor is ours alone. From outside we register its mappings for asynchronous write
//! protection and harvest with `PAGEMAP_SCAN`. The kernel undoes all of it when the descriptor is closed,
//! and so when we are killed.
//!
//! Mappings come and go. Each harvest reads the list of them: what was not there before is registered, and
//! all that it holds counts as written. A range that the process unmapped and mapped again since is told by
//! the kernel's refusal to protect it.
//!
//! What is not seen: writes that go round the process's page tables (devices, other processes that share
//! memory with it), writes to shared mappings, and what happened in a mapping that came and went between two
//! harvests. Memory that the process gives back (`MADV_DONTNEED`) is not reported before it is used again.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::pagemap::{Query, FILE, HUGE, PRESENT, SWAPPED, WRITTEN};
use super::span;
use super::uffd_check::{self, HugePolicy};
use crate::error::{Error, Result};
use crate::guest::PAGE;

mod attach;
mod glimpse;
mod inject;
mod maps;
mod probe;
mod read;
#[cfg_attr(not(target_arch = "x86_64"), path = "registers_unknown.rs")]
mod registers;
mod stop;
#[cfg(test)]
mod tests;

use attach::{unavailable, Attached};
use maps::{Mapping, Ranges};

pub use glimpse::Glimpse;
pub use probe::probe;

/// What errors and metadata call this way of tracking.
pub const NAME: &str = "process";
/// Bytes of a huge page.
const HUGE_BYTES: u64 = span::HUGE * PAGE as u64;

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is there.
    Runs,
    /// Its memory is gone, and it is not: it executed another program, or is about to end.
    Replaced,
    /// It has ended.
    Ended,
}

/// Pages that were found, and where.
#[derive(Debug)]
pub struct Found<'a> {
    /// What kind of mapping: `heap`, `stack`, `anon`, or a file's name.
    pub label: &'a str,
    /// Whether a process may have several mappings so called.
    pub several: bool,
    /// The pages: addresses divided by 4096.
    pub pages: Range<u64>,
}

/// A process that is being watched. Dropping it lets the process be.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    at: Attached,
    watched: Ranges,
    huge: HugePolicy,
    /// Bytes of mappings that the kernel refused to watch, at the last harvest.
    refused: u64,
}

impl Process {
    /// Begins to watch process `pid`, of which nothing counts as written. It is stopped for some 100 us, and
    /// a signal that comes meanwhile is delivered after that.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such process; [`Error::TrackerUnavailable`] where it cannot be watched,
    /// with what would help.
    pub fn attach(pid: i32) -> Result<Self> {
        // Where the kernel has no huge pages to judge by, nothing is lost by cutting them.
        let huge = uffd_check::huge_pages().unwrap_or(HugePolicy::Split);
        let at = attach::attach(pid)?;
        Ok(Self { pid, at, watched: Ranges::default(), huge, refused: 0 })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// For how long its threads were stopped, and how many there were.
    pub fn stopped(&self) -> (Duration, usize) {
        (self.at.stopped, self.at.threads)
    }

    /// Bytes that are watched, in use or not.
    pub fn watched_bytes(&self) -> u64 {
        self.watched.bytes()
    }

    /// Bytes of writable private mappings that the kernel refuses to watch: device memory, or memory that
    /// the process itself watches by userfaultfd.
    pub fn refused_bytes(&self) -> u64 {
        self.refused
    }

    /// Calls `each` with every stretch of pages written since the harvest before, and protects them again: a
    /// write before the call is reported, one after it in a later harvest, one meanwhile in either. The
    /// first harvest reports all pages that hold data of the process.
    pub fn harvest(&mut self, each: &mut dyn FnMut(Found<'_>)) -> Result<Life> {
        let mappings = self.at.maps.read().map_err(|source| self.system("reading the mappings", source))?;
        if mappings.is_empty() {
            return Ok(if self.has_ended() { Life::Ended } else { Life::Replaced });
        }
        let before = std::mem::take(&mut self.watched);
        self.refused = 0;
        // What was written and is now read-only was written all the same.
        let ours = |m: &&Mapping| m.private && (m.writable || before.meets(&m.addresses));
        for mapping in mappings.iter().filter(ours) {
            match self.harvest_mapping(mapping, &before, each) {
                Ok(true) => self.watched.push(mapping.addresses.clone()),
                Ok(false) => self.refused += mapping.addresses.end - mapping.addresses.start,
                // The memory went away meanwhile: the next harvest says how.
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => break,
                Err(e) => return Err(self.system("harvesting written pages", e)),
            }
        }
        Ok(Life::Runs)
    }

    /// Whether the mapping is watched.
    fn harvest_mapping(
        &mut self,
        mapping: &Mapping,
        before: &Ranges,
        each: &mut dyn FnMut(Found<'_>),
    ) -> std::io::Result<bool> {
        let parts = before.split(mapping.addresses.clone());
        if parts.iter().any(|(_, known)| !known) && !self.register(&mapping.addresses)? {
            return Ok(false);
        }
        for (part, known) in parts {
            match self.sweep(mapping, &part, known, each) {
                // Not the mapping that was there before, at least not all of it. What an unfinished scan
                // has cleared is among all that is there.
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                    if !self.register(&part)? {
                        return Ok(false);
                    }
                    match self.sweep(mapping, &part, false, each) {
                        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Ok(false),
                        swept => swept?,
                    }
                }
                swept => swept?,
            }
        }
        Ok(true)
    }

    /// Whether the kernel watches the addresses from here on.
    fn register(&self, addresses: &Range<u64>) -> std::io::Result<bool> {
        match self.at.uffd.register_addresses(addresses) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(e),
            Err(_) => Ok(false),
        }
    }

    fn sweep(
        &mut self,
        mapping: &Mapping,
        addresses: &Range<u64>,
        known: bool,
        each: &mut dyn FnMut(Found<'_>),
    ) -> std::io::Result<()> {
        // A page of a file is not written before it has become the process's own. Pages without an entry
        // are neither reported nor marked, which would cost page tables for memory that nobody uses.
        let query = Query {
            all: if known { WRITTEN } else { 0 },
            none: FILE,
            any: PRESENT | SWAPPED,
            told: HUGE,
            protect: true,
        };
        let (label, several) = mapping.label();
        let mut huge = Vec::new();
        self.at.pagemap.find(addresses.clone(), query, |found, categories| {
            let page = |address: u64| address / PAGE as u64;
            each(Found { label, several, pages: page(found.start)..page(found.end) });
            if categories & HUGE != 0 {
                huge.push(found);
            }
        })?;
        if self.huge == HugePolicy::Split {
            self.cut(&huge);
        }
        Ok(())
    }

    /// Cuts huge pages by protecting a part of each. One that went away meanwhile need not be cut.
    fn cut(&self, huge: &[Range<u64>]) {
        for found in huge {
            for address in (found.start..found.end).step_by(HUGE_BYTES as usize) {
                let _ = self.at.uffd.protect_addresses(&(address..address + PAGE as u64));
            }
        }
    }

    /// Waits until it has ended, at most so long; whether it has.
    pub fn wait(&self, at_most: Duration) -> bool {
        let millis = at_most.as_millis().min(i32::MAX as u128) as i32;
        read::is_readable(self.at.pidfd.as_fd().as_raw_fd(), millis)
    }

    fn has_ended(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Reads a page, by its address divided by 4096; whether it is there.
    pub fn read(&self, page: u64, into: &mut [u8; PAGE]) -> bool {
        read::page(self.pid, page * PAGE as u64, into)
    }

    fn system(&self, what: &str, source: std::io::Error) -> Error {
        Error::System { what: format!("{what} of process {}", self.pid), source }
    }
}
