//! Threads that a guest waits for.
#![allow(unsafe_code)]

/// The shortest turn that the kernel grants, in nanoseconds.
const TURN: u64 = 100_000;

/// The greatest priority of a thread without fixed turns.
const FIRST: i32 = -20;

/// `struct sched_attr` of `sched_setattr(2)`, in its first version.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks the scheduler to run the calling thread as soon as it wakes: one that answers remote faults sleeps most of
/// the time, and must not queue behind those that push. A higher priority takes root (or `CAP_SYS_NICE`); short
/// turns, which help a little, any thread may ask for since Linux 6.12. What is refused is left as it was.
pub fn run_soon() {
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into a structure of that size; thread 0 is the caller.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return;
    }
    for nice in [FIRST, attributes.nice] {
        let asked = Attributes { size, nice, runtime: TURN, ..attributes };
        // SAFETY: the kernel reads `size` bytes of a structure that outlives the call.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const asked, 0) } == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_kind_of_scheduling() {
        let kind = || {
            let mut attributes = Attributes::default();
            let size = size_of::<Attributes>() as u32;
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
            (attributes.policy, attributes.priority, attributes.nice)
        };
        let (before, after) = std::thread::spawn(move || (kind(), (run_soon(), kind()).1)).join().unwrap();
        assert_eq!((before.0, before.1), (after.0, after.1));
        assert!(after.2 == FIRST || after.2 == before.2, "{after:?}");
    }
}
