//! Reading another process's memory, and waiting for its end.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use crate::guest::PAGE;

/// Fills `into` from `address` on in process `pid`; whether all of it is there.
pub(super) fn page(pid: i32, address: u64, into: &mut [u8; PAGE]) -> bool {
    let ours = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: PAGE };
    let theirs = libc::iovec { iov_base: address as *mut _, iov_len: PAGE };
    // SAFETY: the kernel writes at most a page to `into`; addresses of the other process are its business.
    let read = unsafe { libc::process_vm_readv(pid, &ours, 1, &theirs, 1, 0) };
    usize::try_from(read) == Ok(PAGE)
}

/// Whether the descriptor is, or becomes within so many milliseconds, readable.
pub(super) fn is_readable(fd: RawFd, millis: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which the kernel reads and writes.
    unsafe { libc::poll(&mut poll, 1, millis) > 0 }
}
