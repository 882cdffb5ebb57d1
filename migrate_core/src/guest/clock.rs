//! The machine's clock, comparable between processes.
#![allow(unsafe_code)]

/// Nanoseconds of `CLOCK_MONOTONIC`: one clock for all processes of a machine since its boot, which
/// `std::time::Instant` keeps to itself.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel (or its vDSO) fills the struct that we own; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Seconds of processor time that the calling thread has had.
pub fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How often the calling thread has waited for something (`ru_nvcsw` of getrusage(2)): to be held up by other threads
/// does not count.
pub fn thread_waits() -> u64 {
    // SAFETY: the kernel fills the structure, for which any bytes are valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    usage.ru_nvcsw as u64
}
