//! Any process that runs, read without its taking part: a page may change while it is read.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::take::{wait, Memory};
use crate::codec::Page;
use crate::error::Result;
use crate::guest::PAGE;
use crate::track::remote::Glimpse;

/// A process's memory, looked at again after each interval.
#[derive(Debug)]
pub struct ProcessLook {
    glimpse: Glimpse,
    interval: Duration,
}

impl ProcessLook {
    /// Of process `pid`.
    ///
    /// # Errors
    /// As [`Glimpse::of`].
    pub fn of(pid: i32, interval: Duration) -> Result<Self> {
        Ok(Self { glimpse: Glimpse::of(pid)?, interval })
    }
}

impl Memory for ProcessLook {
    fn stretches(&mut self) -> Result<Vec<Range<u64>>> {
        self.glimpse.used()
    }

    fn read(&mut self, pages: &[u64], each: &mut dyn FnMut(u64, &Page)) -> Result<()> {
        let mut bytes = [0; PAGE];
        for page in pages {
            if self.glimpse.read(*page, &mut bytes) {
                each(*page, &bytes);
            }
        }
        Ok(())
    }

    fn advance(&mut self, cancel: &AtomicBool) -> Result<bool> {
        Ok(wait(self.interval, cancel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bakeoff::Taking;

    #[test]
    fn this_process_has_pages_and_what_it_wrote_comes_again() {
        let mut mine = vec![[1u8; PAGE]; 64];
        let mut look = ProcessLook::of(std::process::id() as i32, Duration::ZERO).unwrap();
        let pages: Vec<u64> = look.stretches().unwrap().into_iter().flatten().collect();
        let own = (mine.as_ptr() as usize).div_ceil(PAGE) as u64;
        assert!(pages.contains(&own) && pages.is_sorted());
        let mut seen = Vec::new();
        look.read(&[own, u64::MAX / PAGE as u64], &mut |page, bytes| seen.push((page, bytes[0]))).unwrap();
        mine.iter_mut().for_each(|page| page.fill(7));
        assert!(look.advance(&AtomicBool::new(false)).unwrap());
        look.read(&[own], &mut |page, bytes| seen.push((page, bytes[0]))).unwrap();
        assert_eq!((seen, mine[0][0]), (vec![(own, 1), (own, 7)], 7));
    }

    #[test]
    fn some_of_a_process_is_taken() {
        let mut look = ProcessLook::of(std::process::id() as i32, Duration::ZERO).unwrap();
        let set = Taking { bytes: 256 << 10, rounds: 2 }.from(&mut look, &AtomicBool::new(false)).unwrap();
        assert!((1..=64).contains(&set.pages()), "{set:?}");
        assert!(set.memory_pages() >= set.pages() as u64);
    }

    #[test]
    fn a_process_that_is_not_there_is_said_to_be_missing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let refused = ProcessLook::of(child.id() as i32, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("there is no process"), "{refused}");
        assert!(ProcessLook::of(-1, Duration::ZERO).is_err());
        // A kernel's thread has no memory.
        let kernel = ProcessLook::of(2, Duration::ZERO).and_then(|mut look| look.stretches());
        assert!(kernel.is_err() || kernel.unwrap().is_empty());
    }
}
