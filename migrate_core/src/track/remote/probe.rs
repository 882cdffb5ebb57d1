//! Whether other processes can be watched here: tried on a small one of our own making.
#![allow(unsafe_code)]

use super::{Life, Process};
use crate::error::{Error, Result};

/// Attaches to a process made for that, and harvests it once.
///
/// # Errors
/// [`Error::TrackerUnavailable`] says what is missing and what would provide it.
pub fn probe() -> Result<()> {
    let target = Sleeper::start()?;
    let mut process = Process::attach(target.pid)?;
    let mut pages = 0;
    let life = process.harvest(&mut |found| pages += found.pages.end - found.pages.start)?;
    match (life, pages) {
        (Life::Runs, 1..) => Ok(()),
        _ => Err(super::unavailable("a process made for the trial could not be watched")),
    }
}

/// A copy of this process that does nothing.
struct Sleeper {
    pid: i32,
}

impl Sleeper {
    fn start() -> Result<Self> {
        // SAFETY: a fork without an exit signal: nobody but us sees it end. The child runs one thread, which
        // only makes system calls.
        match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
            0 => loop {
                // SAFETY: no memory is touched. It ends with us, whatever becomes of us.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            pid @ 1.. => Ok(Self { pid: pid as i32 }),
            _ => Err(Error::last_os("starting a process to try on")),
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: it is our own child, which nobody else reaps; the kernel fills the status in.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, &mut status, libc::__WALL);
        }
    }
}
