//! Has another process open a userfaultfd of its own memory, and takes the descriptor.
//!
//! For some 100 us a thread there runs with registers that are not its own. Whoever put them in must be
//! there to put them back: if we were killed meanwhile, the thread would go on in the wrong place. So a
//! **helper** does it, a process that outlives us. It shares our memory and descriptors (and so is quick to
//! start, and hands results over by leaving them there), but no signal that is meant for us reaches it: it
//! has a process number and a session of its own and blocks what can be blocked. When it is done, or dies,
//! the kernel lets the target's threads go.
//!
//! Since threads of ours may be killed at any moment with a lock in their hands, the helper takes none: it
//! makes system calls only, allocates nothing, and cannot panic.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::registers::{in_sequence, peek, Registers};
use super::stop::{ask, errno, now_ns, wait, Stop, Threads};

/// Threads of a process at most.
const MOST_THREADS: usize = 1 << 16;
/// The helper's stack.
const STACK: usize = 256 << 10;
/// Tries to meet a thread where its registers may be changed.
const TRIES: u32 = 200;
/// `UFFD_USER_MODE_ONLY`: what any user may open; the asynchronous mode asks nobody to serve faults.
const USER_MODE_ONLY: u64 = 1;

/// What the helper needs to know.
pub(super) struct Job<'a> {
    /// It, as a descriptor.
    pub pidfd: BorrowedFd<'a>,
    /// Its threads: `/proc/PID/task`.
    pub tasks: BorrowedFd<'a>,
    /// The address of a `syscall` instruction in its code.
    pub gadget: u64,
    /// Whether its seccomp filters must not see our calls.
    pub suspend_seccomp: bool,
}

/// Where it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Starting the helper.
    Start,
    /// Stopping the threads.
    Stop,
    /// Finding one whose registers may be changed.
    Choose,
    /// The program is a 32-bit one.
    Width,
    /// The code that was found is no longer there.
    Gadget,
    /// Changing and restoring registers.
    Registers,
    /// The system call that was injected.
    Open,
    /// Taking the descriptor.
    Take,
}

/// A step and the system's error number.
pub(super) type Failure = (Step, i32);

/// What came out.
#[derive(Debug)]
pub(super) struct Taken {
    /// The userfaultfd.
    pub uffd: OwnedFd,
    /// For how long threads were stopped.
    pub stopped: Duration,
    /// How many.
    pub threads: usize,
}

/// What the helper leaves behind, in our memory.
struct Desk<'a> {
    job: &'a Job<'a>,
    room: Vec<i32>,
    uffd: Result<i32, Failure>,
    stopped_ns: u64,
    threads: usize,
}

/// Does it; the calling thread waits. Only the program's main copy of us may call it: a thread of the
/// target's own cannot.
pub(super) fn take(job: &Job<'_>) -> Result<Taken, Failure> {
    let mut desk = Desk {
        job,
        room: vec![0; MOST_THREADS],
        uffd: Err((Step::Start, libc::ECHILD)),
        stopped_ns: 0,
        threads: 0,
    };
    for _ in 0..TRIES {
        run_helper(&mut desk).map_err(|error| (Step::Start, error))?;
        match desk.uffd {
            Err((Step::Choose, _)) => std::thread::yield_now(),
            _ => break,
        }
    }
    // SAFETY: the helper has just put it into the table of descriptors that we share; nobody else knows it.
    let uffd = desk.uffd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })?;
    Ok(Taken { uffd, stopped: Duration::from_nanos(desk.stopped_ns), threads: desk.threads })
}

/// Starts the helper and waits for its end.
fn run_helper(desk: &mut Desk<'_>) -> Result<(), i32> {
    // Of 16 bytes, as the stack must be aligned.
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    // Without an exit signal it is nobody's business but ours: `wait` in other threads does not see it.
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_VFORK;
    let masked = Masked::all()?;
    // SAFETY: the helper runs `helper` on a stack of its own; by CLONE_VFORK this thread, whose thread-local
    // variables it shares, and with it desk and stack, waits until the helper has ended.
    let pid = unsafe { libc::clone(helper, top.cast(), flags, (&raw mut *desk).cast()) };
    let started = if pid < 0 { Err(errno()) } else { Ok(()) };
    drop(masked);
    started?;
    let mut status = 0;
    // SAFETY: the kernel fills the status in. An error means that somebody else has reaped it.
    while unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } < 0 && errno() == libc::EINTR {}
    Ok(())
}

/// All signals of this thread are blocked while it lives.
struct Masked(libc::sigset_t);

impl Masked {
    fn all() -> Result<Self, i32> {
        // SAFETY: the sets are filled in by these calls.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) {
                0 => Ok(Self(before)),
                error => Err(error),
            }
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in when it was made.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

extern "C" fn helper(desk: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the desk that `run_helper` passed, which nobody else touches until the helper ends.
    let desk = unsafe { &mut *desk.cast::<Desk<'_>>() };
    leave();
    let Desk { job, room, .. } = desk;
    let mut threads = Threads::new(room);
    let began = now_ns();
    let uffd = work(job, &mut threads);
    threads.release();
    let count = threads.all().len();
    desk.stopped_ns += now_ns().saturating_sub(began);
    desk.threads = count;
    desk.uffd = uffd;
    0
}

/// Out of our session, so that a signal to our group or terminal is not for it; and, where that is allowed, ahead
/// of programs that compute, since the target waits for it.
fn leave() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the structure; both are about the calling process, the helper, alone.
    unsafe {
        libc::setsid();
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority);
    }
}

fn work(job: &Job<'_>, threads: &mut Threads<'_>) -> Result<i32, Failure> {
    let suspend = if job.suspend_seccomp { libc::PTRACE_O_SUSPEND_SECCOMP } else { 0 };
    let options = (libc::PTRACE_O_TRACESYSGOOD | suspend) as usize;
    threads.stop_all(job.tasks.as_raw_fd(), options).map_err(|error| (Step::Stop, error))?;
    let none = if threads.all().is_empty() { libc::ETIMEDOUT } else { libc::EAGAIN };
    let chosen = threads.all().iter().copied().find_map(willing);
    let (tid, registers) =
        chosen.ok_or(if none == libc::EAGAIN { (Step::Choose, none) } else { (Step::Stop, none) })?;
    if !registers.is_64_bit() {
        return Err((Step::Width, libc::ENOEXEC));
    }
    match peek(tid, job.gadget) {
        Ok(code) if code.to_le_bytes().starts_with(&super::attach::SYSCALL) => {}
        _ => return Err((Step::Gadget, libc::ENOEXEC)),
    }
    borrow(job, tid, registers)
}

/// The thread and its registers, if they may be changed where it stands.
fn willing(tid: i32) -> Option<(i32, Registers)> {
    let registers = Registers::read(tid).ok()?;
    let free = registers.in_call() || !in_sequence(tid, registers.instruction());
    free.then_some((tid, registers))
}

/// Makes the calls on the thread, and gives it its registers and its signal mask back.
fn borrow(job: &Job<'_>, tid: i32, own: Registers) -> Result<i32, Failure> {
    let mut own = own;
    own.enter_wait_again();
    let mask = signal_mask(tid).map_err(|error| (Step::Registers, error))?;
    // Or a handler would begin on borrowed registers.
    set_signal_mask(tid, u64::MAX).map_err(|error| (Step::Registers, error))?;
    let uffd = open(job, tid, &own);
    let settled = settle(tid);
    let restored = own.write(tid).and(set_signal_mask(tid, mask));
    let uffd = uffd?;
    settled.and(restored).map_err(|error| (Step::Registers, error))?;
    Ok(uffd)
}

fn open(job: &Job<'_>, tid: i32, own: &Registers) -> Result<i32, Failure> {
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64 | USER_MODE_ONLY;
    let theirs = call(tid, &own.calling(job.gadget, libc::SYS_userfaultfd, flags))?;
    // SAFETY: touches no memory.
    let ours = unsafe { libc::syscall(libc::SYS_pidfd_getfd, job.pidfd.as_raw_fd(), theirs, 0) };
    let error = errno();
    call(tid, &own.calling(job.gadget, libc::SYS_close, theirs as u64))?;
    i32::try_from(ours).ok().filter(|ours| *ours >= 0).ok_or((Step::Take, error))
}

/// Has the thread make one system call; its answer.
fn call(tid: i32, registers: &Registers) -> Result<i64, Failure> {
    let changed = |error| (Step::Registers, error);
    registers.write(tid).map_err(changed)?;
    for _ in ["in", "out"] {
        ask(libc::PTRACE_SYSCALL, tid, 0, 0).map_err(changed)?;
        loop {
            match wait(tid).map_err(changed)? {
                Stop::Call => break,
                Stop::Gone => return Err((Step::Registers, libc::ESRCH)),
                // A stop of the whole process, which it enters again when it is let go.
                Stop::Asked => ask(libc::PTRACE_SYSCALL, tid, 0, 0).map_err(changed)?,
                // All are blocked but SIGKILL.
                Stop::Signal(signal) => {
                    ask(libc::PTRACE_SYSCALL, tid, 0, signal as usize).map_err(changed)?;
                }
            }
        }
    }
    match Registers::read(tid).map_err(changed)?.answer() {
        error @ -4095..0 => Err((Step::Open, -error as i32)),
        answer => Ok(answer),
    }
}

/// Brings the thread from the end of a system call back to where it was stopped: only there does the kernel
/// look whether a call of its own is to be restarted. It runs no instruction in between.
fn settle(tid: i32) -> Result<(), i32> {
    ask(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
    loop {
        ask(libc::PTRACE_CONT, tid, 0, 0)?;
        match wait(tid)? {
            Stop::Asked => return Ok(()),
            Stop::Gone => return Err(libc::ESRCH),
            Stop::Call | Stop::Signal(_) => {}
        }
    }
}

fn signal_mask(tid: i32) -> Result<u64, i32> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes the eight bytes that it is told of.
    match unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut mask) } {
        -1 => Err(errno()),
        _ => Ok(mask),
    }
}

fn set_signal_mask(tid: i32, mask: u64) -> Result<(), i32> {
    // SAFETY: the kernel reads the eight bytes that it is told of.
    match unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw const mask) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}
