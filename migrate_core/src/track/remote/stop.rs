//! Stopping the threads of another process with ptrace, and letting them go.
//!
//! Runs in the helper of [`super::inject`]: nothing here allocates, takes a lock or can panic.
#![allow(unsafe_code)]

use std::ptr;

use super::registers::Registers;

/// Longest wait for a thread to stop. One that sleeps in the kernel, out of reach of signals, never does.
const PATIENCE_NS: u64 = 500_000_000;
/// Between two looks at a thread that is to stop.
const LOOK_NS: i64 = 20_000;
/// The event of a stop that PTRACE_INTERRUPT asked for (`linux/ptrace.h`).
const EVENT_STOP: i32 = 128;
/// Added to SIGTRAP in stops at system calls, by PTRACE_O_TRACESYSGOOD.
const AT_CALL: i32 = 0x80;

/// The calling thread's last system error.
pub(super) fn errno() -> i32 {
    // SAFETY: always points to the thread's own number.
    unsafe { *libc::__errno_location() }
}

/// Nanoseconds of the monotonic clock.
pub(super) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// A request whose two arguments are numbers.
pub(super) fn ask(request: libc::c_uint, tid: i32, address: usize, data: usize) -> Result<(), i32> {
    // SAFETY: these requests take numbers; they read and write none of our memory.
    match unsafe { libc::ptrace(request, tid, address, data) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

/// Why a thread no longer runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was asked to stop.
    Asked,
    /// It is about to enter, or to leave, a system call.
    Call,
    /// This signal is about to be delivered.
    Signal(i32),
    /// It has ended.
    Gone,
}

/// Waits until the thread stops; `ETIMEDOUT` if it does not.
pub(super) fn wait(tid: i32) -> Result<Stop, i32> {
    let end = now_ns().saturating_add(PATIENCE_NS);
    loop {
        let mut status = 0;
        // SAFETY: the kernel fills the status in.
        match unsafe { libc::waitpid(tid, &mut status, libc::__WALL | libc::WNOHANG) } {
            0 if now_ns() > end => return Err(libc::ETIMEDOUT),
            0 => nap(),
            -1 if errno() == libc::EINTR => {}
            -1 => return Err(errno()),
            _ => return Ok(read(status)),
        }
    }
}

fn read(status: i32) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Gone;
    }
    match libc::WSTOPSIG(status) {
        _ if status >> 16 == EVENT_STOP => Stop::Asked,
        signal if signal == libc::SIGTRAP | AT_CALL => Stop::Call,
        signal => Stop::Signal(signal),
    }
}

fn nap() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: LOOK_NS };
    // SAFETY: the kernel reads the structure.
    unsafe { libc::nanosleep(&time, ptr::null_mut()) };
}

/// Threads that were stopped, in memory that was there before.
pub(super) struct Threads<'a> {
    room: &'a mut [i32],
    count: usize,
}

impl<'a> Threads<'a> {
    /// None, with room for so many.
    pub(super) fn new(room: &'a mut [i32]) -> Self {
        Self { room, count: 0 }
    }

    /// Those that are stopped.
    pub(super) fn all(&self) -> &[i32] {
        self.room.get(..self.count).unwrap_or(&[])
    }

    fn add(&mut self, tid: i32) -> Result<(), i32> {
        let free = self.room.get_mut(self.count).ok_or(libc::E2BIG)?;
        *free = tid;
        self.count += 1;
        Ok(())
    }

    /// Stops every thread listed in the folder `tasks` (`/proc/PID/task`), until no other comes up. Threads
    /// that end meanwhile, or sleep out of reach in the kernel, are left out: they run no code of their own.
    pub(super) fn stop_all(&mut self, tasks: i32, options: usize) -> Result<(), i32> {
        let mut found = true;
        while found {
            found = false;
            each_number(tasks, &mut |tid| {
                if self.all().contains(&tid) {
                    return Ok(());
                }
                found |= self.stop(tid, options)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether it was stopped.
    fn stop(&mut self, tid: i32, options: usize) -> Result<bool, i32> {
        match ask(libc::PTRACE_SEIZE, tid, 0, options) {
            Err(libc::ESRCH) => return Ok(false),
            // A thread seized before that could not be stopped, which EPERM says too.
            Err(libc::EPERM) if self.count > 0 => return Ok(false),
            seized => seized?,
        }
        ask(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        loop {
            match wait(tid) {
                Ok(Stop::Asked) => break,
                Ok(Stop::Gone) | Err(libc::ETIMEDOUT | libc::ECHILD) => return Ok(false),
                // It stays interrupted: the signal is delivered first.
                Ok(Stop::Signal(signal)) => ask(libc::PTRACE_CONT, tid, 0, signal as usize)?,
                Ok(Stop::Call) => ask(libc::PTRACE_CONT, tid, 0, 0)?,
                Err(error) => return Err(error),
            }
        }
        self.add(tid)?;
        Ok(true)
    }

    /// Lets all go on as if nothing had been. Waits that the stop has broken off are entered again.
    pub(super) fn release(&self) {
        for tid in self.all() {
            if let Ok(mut registers) = Registers::read(*tid) {
                if registers.enter_wait_again() {
                    // A thread that ended meanwhile needs nothing.
                    let _ = registers.write(*tid);
                }
            }
            let _ = ask(libc::PTRACE_DETACH, *tid, 0, 0);
        }
    }
}

/// Calls `each` with every number in a folder of `/proc`, open as `folder`.
fn each_number(folder: i32, each: &mut dyn FnMut(i32) -> Result<(), i32>) -> Result<(), i32> {
    let mut buffer = [0u8; 4096];
    // SAFETY: a seek touches no memory.
    if unsafe { libc::lseek(folder, 0, libc::SEEK_SET) } < 0 {
        return Err(errno());
    }
    loop {
        // SAFETY: the kernel writes at most the buffer's length to it.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, folder, buffer.as_mut_ptr(), buffer.len()) };
        let mut entries = match usize::try_from(read) {
            Ok(0) => return Ok(()),
            Ok(read) => buffer.get(..read).unwrap_or(&[]),
            // The process is gone.
            Err(_) if errno() == libc::ENOENT => return Ok(()),
            Err(_) => return Err(errno()),
        };
        // struct linux_dirent64: inode (8), offset (8), length (2), kind (1), name.
        while let Some(&[low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let Some(name) = entries.get(19..length) else { break };
            if let Some(number) = number(name) {
                each(number)?;
            }
            entries = entries.get(length..).unwrap_or(&[]);
        }
    }
}

fn number(name: &[u8]) -> Option<i32> {
    let digits = name.iter().take_while(|byte| **byte != 0);
    let mut value = None;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i32::from(digit - b'0'))?;
        value = Some(value.unwrap_or(0i32).checked_mul(10)?.checked_add(digit)?);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn folders_of_numbers_are_read_whole() {
        let threads: Vec<_> = (0..300).map(|_| std::thread::spawn(std::thread::park)).collect();
        let folder = std::fs::File::open("/proc/self/task").unwrap();
        let mut found = Vec::new();
        each_number(folder.as_raw_fd(), &mut |tid| {
            found.push(tid);
            Ok(())
        })
        .unwrap();
        assert!(found.len() > 300 && found.contains(&(std::process::id() as i32)), "{}", found.len());
        for thread in threads {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }

    #[test]
    fn only_names_that_are_numbers_count() {
        assert_eq!(number(b"1234\0\0"), Some(1234));
        assert_eq!(number(b"."), None);
        assert_eq!(number(b"\0"), None);
        assert_eq!(number(b"99999999999\0"), None);
    }
}
