//! The registers of a stopped thread, and what they say about it. x86-64.
//!
//! Runs in the helper of [`super::inject`]: nothing here allocates, takes a lock or can panic.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::stop::errno;

/// The code segment of 64-bit programs.
const CODE_64: u64 = 0x33;
/// What the kernel leaves in `rax` for "enter the call again, unless a handler is to run" (`linux/errno.h`).
const RESTART_NO_HANDLER: u64 = (-514i64) as u64;
const INTERRUPTED: u64 = -(libc::EINTR as i64) as u64;

/// Waits that a mere stop breaks off with EINTR (signal(7), "Interruption of system calls and library
/// functions by stop signals"), where other waits go on by themselves.
const WAITS: [i64; 9] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
];

/// Of a thread that is stopped.
#[derive(Clone, Copy)]
pub(super) struct Registers(libc::user_regs_struct);

impl Registers {
    pub(super) fn read(tid: i32) -> Result<Self, i32> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
        // SAFETY: the kernel fills the structure in.
        match unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr()) } {
            -1 => Err(errno()),
            // SAFETY: filled in.
            _ => Ok(Self(unsafe { registers.assume_init() })),
        }
    }

    pub(super) fn write(&self, tid: i32) -> Result<(), i32> {
        // SAFETY: the kernel reads the structure.
        match unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0, &raw const self.0) } {
            -1 => Err(errno()),
            _ => Ok(()),
        }
    }

    /// Whether the thread runs a 64-bit program.
    pub(super) fn is_64_bit(&self) -> bool {
        self.0.cs == CODE_64
    }

    /// Whether it is in a system call.
    pub(super) fn in_call(&self) -> bool {
        self.0.orig_rax as i64 >= 0
    }

    /// The instruction that is next.
    pub(super) fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// What the last system call answered.
    pub(super) fn answer(&self) -> i64 {
        self.0.rax as i64
    }

    /// The same thread about to make the system call `number` by the instruction at `gadget`, instead of
    /// what it was doing.
    pub(super) fn calling(&self, gadget: u64, number: i64, argument: u64) -> Self {
        let mut other = *self;
        other.0.rip = gadget;
        other.0.rax = number as u64;
        other.0.rdi = argument;
        // No call that the kernel should restart.
        other.0.orig_rax = u64::MAX;
        Self(other.0)
    }

    /// Where the stop broke off a wait with EINTR, which the program may take for an error, lets the kernel
    /// enter it again. Whether there was anything to do. A signal with a handler still breaks it off.
    pub(super) fn enter_wait_again(&mut self) -> bool {
        let broken = self.0.rax == INTERRUPTED && WAITS.contains(&(self.0.orig_rax as i64));
        if broken {
            self.0.rax = RESTART_NO_HANDLER;
        }
        broken
    }
}

/// Whether the thread is inside a restartable sequence (rseq): changing its registers there would break the
/// sequence without its knowing. Unknown counts as inside.
pub(super) fn in_sequence(tid: i32, instruction: u64) -> bool {
    let mut rseq = MaybeUninit::<libc::ptrace_rseq_configuration>::zeroed();
    let size = size_of::<libc::ptrace_rseq_configuration>();
    // SAFETY: the kernel writes at most `size` bytes to the structure, for which all bytes are valid.
    let (answer, rseq) = unsafe {
        let answer = libc::ptrace(libc::PTRACE_GET_RSEQ_CONFIGURATION, tid, size, rseq.as_mut_ptr());
        (answer, rseq.assume_init())
    };
    if answer == -1 || rseq.rseq_abi_pointer == 0 {
        return false;
    }
    // struct rseq: cpu numbers (8), address of the sequence (8).
    let Ok(sequence) = peek(tid, rseq.rseq_abi_pointer.wrapping_add(8)) else { return true };
    if sequence == 0 {
        return false;
    }
    // struct rseq_cs: version and flags (8), first instruction (8), length (8).
    match (peek(tid, sequence.wrapping_add(8)), peek(tid, sequence.wrapping_add(16))) {
        (Ok(first), Ok(length)) => instruction.wrapping_sub(first) < length,
        _ => true,
    }
}

/// The eight bytes at `address` in the thread's memory.
pub(super) fn peek(tid: i32, address: u64) -> Result<u64, i32> {
    // SAFETY: errno is the thread's own; the request reads no memory of ours and answers by value.
    unsafe {
        *libc::__errno_location() = 0;
        let value = libc::ptrace(libc::PTRACE_PEEKDATA, tid, address, 0);
        match errno() {
            0 => Ok(value as u64),
            error => Err(error),
        }
    }
}
