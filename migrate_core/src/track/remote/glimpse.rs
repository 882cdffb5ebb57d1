//! A look at another process's memory, without watching it: nothing is done to the process.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::attach::refusal;
use super::maps::{Mapping, Maps};
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::track::pagemap::{Pagemap, Query, PRESENT, SWAPPED};

/// The memory that a process has at the time, through `/proc/PID/mem` (proc_pid_mem(5)). When the process ends or
/// executes another program there is nothing more to see, even if its number is used again.
#[derive(Debug)]
pub struct Glimpse {
    pid: i32,
    maps: Maps,
    pagemap: Pagemap,
    memory: File,
}

impl Glimpse {
    /// Of process `pid`, which may be this one.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such process; [`Error::TrackerUnavailable`] where its memory may not be read,
    /// with what would help.
    pub fn of(pid: i32) -> Result<Self> {
        let refused = |e: io::Error| refusal(pid, &e);
        let open = |what: &str| File::open(format!("/proc/{pid}/{what}")).map_err(refused);
        let maps = Maps::open(pid).map_err(refused)?;
        Ok(Self { pid, maps, pagemap: Pagemap::of(open("pagemap")?), memory: open("mem")? })
    }

    /// The pages that hold data which the process may write, by address divided by 4096, in ascending order.
    ///
    /// # Errors
    /// [`Error::System`] where the kernel is too old to say (before Linux 6.7) or does not let us look.
    pub fn used(&mut self) -> Result<Vec<Range<u64>>> {
        let failed = |pid: i32| {
            move |source| Error::System {
                what: format!("looking for pages in use of process {pid} (which needs Linux 6.7)"),
                source,
            }
        };
        let mappings = self.maps.read().map_err(failed(self.pid))?;
        let ours = |mapping: &&Mapping| mapping.writable && !is_device(&mapping.name);
        let query = Query { any: PRESENT | SWAPPED, ..Query::default() };
        let (page, mut used) = (PAGE as u64, Vec::new());
        for mapping in mappings.iter().filter(ours) {
            self.pagemap
                .find(mapping.addresses.clone(), query, |found, _| {
                    used.push(found.start / page..found.end / page);
                })
                .map_err(failed(self.pid))?;
        }
        Ok(used)
    }

    /// Reads a page; whether it is there.
    pub fn read(&self, page: u64, into: &mut [u8; PAGE]) -> bool {
        page.checked_mul(PAGE as u64).is_some_and(|address| self.memory.read_exact_at(into, address).is_ok())
    }
}

/// Whether a mapping so called is of a device: its memory is not the process's, and to read it may have effects.
fn is_device(name: &str) -> bool {
    const MEMORY: [&str; 3] = ["/dev/shm/", "/dev/zero", "/dev/hugepages/"];
    name.starts_with("/dev/") && !MEMORY.iter().any(|memory| name.starts_with(memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_from_shared_memory() {
        let names = [
            "",
            "[heap]",
            "/dev/shm/guest",
            "/dev/zero (deleted)",
            "/memfd:ram",
            "/dev/dri/card0",
            "/dev/mem",
        ];
        assert_eq!(names.map(is_device), [false, false, false, false, false, true, true]);
    }
}
