//! Getting at another process: what can be said about it before it is touched, and what to say when it
//! cannot be watched.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::inject::{self, Failure, Job, Step, Taken};
use super::maps::{Mapping, Maps};
use super::NAME;
use crate::error::{Error, Result};
use crate::track::pagemap::Pagemap;
use crate::track::uffd::Uffd;
use crate::track::{uffd_async, uffd_check};

/// The instruction that makes a system call.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// In an ELF file's fifth byte.
const CLASS_32: u8 = 1;
/// How often a process is tried that has nothing to make a system call with, and how long apart.
const ATTEMPTS: usize = 50;
const BETWEEN: Duration = Duration::from_millis(10);
/// Code that is looked through for a [`SYSCALL`], in each mapping.
const MOST_CODE: usize = 4 << 20;

pub(super) fn unavailable(reason: impl Into<String>) -> Error {
    Error::TrackerUnavailable { tracker: NAME, reason: reason.into() }
}

/// A process at hand: nothing is watched yet.
#[derive(Debug)]
pub(super) struct Attached {
    /// It, as a descriptor: readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its mappings.
    pub maps: Maps,
    /// Its page map.
    pub pagemap: Pagemap,
    /// The userfaultfd of its memory.
    pub uffd: Uffd,
    /// For how long it was stopped.
    pub stopped: Duration,
    /// How many of its threads.
    pub threads: usize,
}

/// Attaches to process `pid`: it is stopped for a moment, and goes on as it was. One that is becoming another
/// program is waited for.
pub(super) fn attach(pid: i32) -> Result<Attached> {
    for _ in 0..ATTEMPTS {
        if let Some(attached) = attempt(pid)? {
            return Ok(attached);
        }
        std::thread::sleep(BETWEEN);
    }
    Err(unavailable(format!("no code of process {pid} that makes a system call was found")))
}

/// One attempt; `None` where the process has no code to make a system call with, or has lost its memory since: in
/// the middle of an exec it has neither the old program nor all of the new one.
fn attempt(pid: i32) -> Result<Option<Attached>> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(unavailable("it is there for x86-64 only"));
    }
    uffd_check::basics().map_err(unavailable)?;
    let pidfd = pidfd(pid)?;
    let status = Status::of(pid)?;
    status.check(pid)?;
    let refused = |e: io::Error| refusal(pid, &e);
    let mut maps = Maps::open(pid).map_err(refused)?;
    let pagemap = Pagemap::of(File::open(format!("/proc/{pid}/pagemap")).map_err(refused)?);
    let tasks = File::open(format!("/proc/{pid}/task")).map_err(refused)?;
    let mappings = maps.read().map_err(refused)?;
    if mappings.is_empty() {
        return Err(no_memory(pid));
    }
    is_64_bit(pid)?;
    let Some(gadget) = gadget(pid, &mappings)? else { return Ok(None) };
    let job =
        Job { pidfd: pidfd.as_fd(), tasks: tasks.as_fd(), gadget, suspend_seccomp: status.seccomp != 0 };
    let taken = inject::take(&job).map_err(|failure| explain(pid, &status, failure))?;
    let uffd = Uffd::adopt(taken.uffd, uffd_async::FEATURES).map_err(unavailable)?;
    // Mappings that are gone are those of a program before the one that was stopped.
    let same = !maps.read().map_err(refused)?.is_empty();
    let Taken { stopped, threads, .. } = taken;
    Ok(same.then_some(Attached { pidfd, maps, pagemap, uffd, stopped, threads }))
}

fn pidfd(pid: i32) -> Result<OwnedFd> {
    if pid == std::process::id() as i32 {
        return Err(Error::usage("a process cannot record itself: record it from another one"));
    }
    // SAFETY: the call takes numbers only.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(raw) {
        // SAFETY: a descriptor that the kernel just gave us and nobody else has.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOSYS) => unavailable("it needs Linux 6.7 or later"),
            _ => Error::usage(format!("there is no process {pid}")),
        }),
    }
}

/// Of `/proc/PID/status` (proc_pid_status(5)).
struct Status {
    process: i32,
    tracer: i32,
    seccomp: i32,
    has_memory: bool,
}

impl Status {
    fn of(pid: i32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| refusal(pid, &e))?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            process: number("Tgid"),
            tracer: number("TracerPid"),
            seccomp: number("Seccomp"),
            has_memory: text.contains("\nVmSize:"),
        })
    }

    fn check(&self, pid: i32) -> Result<()> {
        if self.process != pid {
            return Err(Error::usage(format!("{pid} is a thread: record its process, {}", self.process)));
        }
        match self.tracer {
            _ if !self.has_memory => Err(no_memory(pid)),
            0 => Ok(()),
            tracer => Err(unavailable(format!(
                "process {pid} is traced by process {tracer} already (a debugger, strace): end that first"
            ))),
        }
    }
}

fn no_memory(pid: i32) -> Error {
    Error::usage(format!("process {pid} has no memory of its own: it is a kernel's thread, or has ended"))
}

fn is_64_bit(pid: i32) -> Result<()> {
    let mut head = [0; 5];
    let read = File::open(format!("/proc/{pid}/exe")).and_then(|mut file| file.read_exact(&mut head));
    match read {
        Ok(()) if head[4] == CLASS_32 => Err(width(pid)),
        // A program that cannot be read is judged by its registers.
        _ => Ok(()),
    }
}

fn width(pid: i32) -> Error {
    unavailable(format!("process {pid} runs a 32-bit program; only 64-bit ones can be recorded"))
}

/// Where the process has a `syscall` instruction: the kernel's own code in it first, which all have.
fn gadget(pid: i32, mappings: &[Mapping]) -> Result<Option<u64>> {
    let memory = File::open(format!("/proc/{pid}/mem")).map_err(|e| refusal(pid, &e))?;
    let code = || mappings.iter().filter(|mapping| mapping.executable);
    let ordered = code().filter(|m| m.name == "[vdso]").chain(code().filter(|m| m.name != "[vdso]"));
    let mut found = ordered.filter_map(|mapping| {
        let length = (mapping.addresses.end - mapping.addresses.start) as usize;
        let mut bytes = vec![0; length.min(MOST_CODE)];
        memory.read_exact_at(&mut bytes, mapping.addresses.start).ok()?;
        let at = bytes.windows(SYSCALL.len()).position(|code| code == SYSCALL)?;
        // Eight bytes are compared before it is used.
        (at + size_of::<u64>() <= bytes.len()).then_some(mapping.addresses.start + at as u64)
    });
    Ok(found.next())
}

/// What to say when the system refuses access.
pub(super) fn refusal(pid: i32, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => unavailable(permission(pid)),
        Some(libc::ENOENT | libc::ESRCH) => Error::usage(format!("there is no process {pid}")),
        _ => unavailable(format!("process {pid} cannot be looked at: {error}")),
    }
}

fn permission(pid: i32) -> String {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let rule = match scope.trim() {
        "" | "0" => "",
        "3" => "; /proc/sys/kernel/yama/ptrace_scope is 3, which forbids it to everybody until the next boot",
        _ => {
            "; /proc/sys/kernel/yama/ptrace_scope keeps other users' programs apart: write 0 to it, or run as root"
        }
    };
    format!(
        "no permission to trace process {pid}: record as its user or as root (in a container with the \
         capability SYS_PTRACE){rule}"
    )
}

fn explain(pid: i32, status: &Status, (step, error): Failure) -> Error {
    let cause = io::Error::from_raw_os_error(error);
    match (step, error) {
        (Step::Stop, libc::EPERM) if status.seccomp != 0 => unavailable(format!(
            "process {pid} has a seccomp filter, which only root may pass by: record as root"
        )),
        (Step::Stop | Step::Take, libc::EPERM) => unavailable(permission(pid)),
        (Step::Stop, libc::ETIMEDOUT) => unavailable(format!(
            "no thread of process {pid} stops: all sleep in the kernel, or wait for a child that they made \
             by vfork; try again"
        )),
        (_, libc::ESRCH) => Error::usage(format!("process {pid} ended while it was looked at")),
        (Step::Width, _) => width(pid),
        (Step::Gadget, _) => unavailable(format!("process {pid} changed its program meanwhile; try again")),
        (Step::Choose, _) => {
            unavailable(format!("process {pid} is always in restartable sequences; try again"))
        }
        (Step::Open, _) => unavailable(format!(
            "process {pid} may not open a userfaultfd ({cause}): a seccomp profile, as containers have, \
             must allow it"
        )),
        (Step::Start | Step::Stop | Step::Registers | Step::Take, _) => {
            unavailable(format!("process {pid} cannot be watched: {step:?}: {cause}"))
        }
    }
}
