//! Typed ioctls: a request's number and its argument are one type, so that they cannot be mismatched.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The argument of one ioctl.
///
/// # Safety
/// `NUMBER` must be that of a request whose argument the kernel reads and writes with this very layout;
/// whatever else the kernel touches through addresses in it must be guest memory or outlive the call.
pub(super) unsafe trait Request {
    /// The request's number.
    const NUMBER: u64;
}

/// The kernel reads the argument.
pub(super) const READS: u64 = 1;
/// The kernel writes the argument.
pub(super) const WRITES: u64 = 2;

/// A request's number, put together as in `asm-generic/ioctl.h`: `direction` is the kernel's side of
/// [`READS`] and [`WRITES`], `size` that of the argument.
pub(super) const fn number(direction: u64, group: u8, index: u8, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (group as u64) << 8 | index as u64
}

/// Makes the request, again if a signal came in between; returns the kernel's answer.
pub(super) fn call<R: Request>(fd: BorrowedFd<'_>, request: &mut R) -> io::Result<usize> {
    loop {
        // SAFETY: the trait's implementer pairs number and layout; the argument outlives the call.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), R::NUMBER as _, std::ptr::from_mut(request)) };
        match usize::try_from(answer) {
            Ok(answer) => return Ok(answer),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
}
