//! One channel of a shaped link: its two sockets, and how an end at one becomes an end at the other.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::event::PollFlags;

use super::burst::{Burst, Pool};
use super::delay::DelayQueue;
use super::pacer::window;
use super::spec::LinkSpec;
use super::stream::Stream;

/// Both directions: flow `d` goes from end `d` to end `1 - d`. End 0 is near, end 1 far.
pub(super) const DIRECTIONS: [usize; 2] = [0, 1];

/// A channel: its two sockets and what is under way between them.
#[derive(Debug)]
pub(super) struct Channel {
    ends: [Stream; 2],
    flows: [Flow; 2],
    /// Whether its bytes go before those of others.
    ahead: bool,
    /// The connection broke at one end: an orderly end would be a lie to the other.
    broken: bool,
    reset: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Flow {
    queue: DelayQueue<Item>,
    /// The source may have more to say.
    open: bool,
    /// The end, or a failure, has been delivered.
    done: bool,
    /// As far as is known; poll is asked only about what is not.
    readable: bool,
    writable: bool,
}

#[derive(Debug)]
enum Item {
    Bytes(Burst),
    End,
    Reset,
}

impl Flow {
    fn new(window: usize) -> Self {
        let queue = DelayQueue::new(window);
        Self { queue, open: true, done: false, readable: false, writable: true }
    }

    fn is_ready(&self) -> bool {
        self.open && self.readable && !self.queue.is_full()
    }

    fn recycle_first(&mut self, pool: &mut Pool) {
        if let Some(Item::Bytes(burst)) = self.queue.pop() {
            pool.recycle(burst);
        }
    }

    fn close(&mut self) {
        self.queue.clear();
        (self.open, self.done) = (false, true);
    }
}

impl Channel {
    /// A channel between non-blocking sockets: near and far.
    pub(super) fn new(ends: [Stream; 2], reset: Arc<AtomicBool>, spec: &LinkSpec) -> Self {
        let flows = DIRECTIONS.map(|_| Flow::new(window(spec)));
        Self { ends, flows, ahead: false, broken: false, reset }
    }

    /// The same channel, whose bytes go before those of others.
    pub(super) fn ahead(mut self) -> Self {
        self.ahead = true;
        self
    }

    pub(super) fn is_ahead(&self) -> bool {
        self.ahead
    }

    pub(super) fn is_done(&self) -> bool {
        self.flows.iter().all(|flow| flow.done)
    }

    /// The socket of end `side`.
    pub(super) fn end(&self, side: usize) -> BorrowedFd<'_> {
        self.ends[side].as_fd()
    }

    /// Reads a burst in direction `d`, to be released when `stamp`, given its length, says.
    pub(super) fn read(&mut self, d: usize, pool: &mut Pool, stamp: impl FnOnce(usize) -> f64) {
        let got = pool.read_from(&self.ends[d]);
        let flow = &mut self.flows[d];
        let (count, item) = match got {
            Ok(Some((count, burst))) => (count, Item::Bytes(burst)),
            Ok(None) => (0, Item::End),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => return,
                ErrorKind::WouldBlock => return flow.readable = false,
                _ => (0, Item::Reset),
            },
        };
        // A short read has most likely emptied the socket; if not, poll says so at once.
        flow.readable = count == pool.burst_size();
        flow.open = count > 0;
        flow.queue.push(stamp(count), count, item);
    }

    /// Writes what is due in direction `d` at `now`.
    pub(super) fn deliver(&mut self, d: usize, now: f64, pool: &mut Pool) {
        while self.flows[d].writable {
            let written = match self.flows[d].queue.due(now) {
                None => return,
                Some(Item::End) => return self.finish(d),
                Some(Item::Reset) => return self.break_off(),
                Some(Item::Bytes(burst)) => burst.write_to(&self.ends[1 - d]),
            };
            match written {
                Ok(false) => (),
                Ok(true) => self.flows[d].recycle_first(pool),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.flows[d].writable = false,
                Err(_) => return self.lose_reader(d),
            }
        }
    }

    /// The source's orderly end has come through.
    fn finish(&mut self, d: usize) {
        self.flows[d].close();
        if !self.broken {
            // It fails where the reader is gone already, which its own flow will tell.
            let _ = self.ends[1 - d].shutdown(Shutdown::Write);
        }
    }

    /// The source's reset has come through: neither end has anybody to talk to.
    fn break_off(&mut self) {
        self.broken = true;
        self.flows.iter_mut().for_each(Flow::close);
    }

    /// The reader of direction `d` is gone. What it said before must still come through.
    fn lose_reader(&mut self, d: usize) {
        self.broken = true;
        self.flows[d].close();
        // The writer of a UNIX socket learns of it at its next write; TCP has no way to say so.
        let _ = self.ends[d].shutdown(Shutdown::Read);
    }

    /// Whether a read in direction `d` is likely to give something that there is room for.
    pub(super) fn is_ready(&self, d: usize) -> bool {
        self.flows[d].is_ready()
    }

    /// Which of its conditions poll has to watch at end `side`.
    pub(super) fn interest(&self, side: usize) -> PollFlags {
        let (reads, writes) = (&self.flows[side], &self.flows[1 - side]);
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, reads.open && !reads.readable);
        flags.set(PollFlags::OUT, !writes.done && !writes.writable);
        flags
    }

    /// Takes in what poll saw at end `side`; trouble counts as both, the next call will name it.
    pub(super) fn note(&mut self, side: usize, seen: PollFlags) {
        let trouble = seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        self.flows[side].readable |= trouble || seen.contains(PollFlags::IN);
        self.flows[1 - side].writable |= trouble || seen.contains(PollFlags::OUT);
    }

    /// The next moment at which there is something to write, if no socket is in the way.
    pub(super) fn next_release(&self) -> Option<f64> {
        let waiting = self.flows.iter().filter(|flow| flow.writable);
        waiting.filter_map(|flow| flow.queue.next_release()).min_by(f64::total_cmp)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if !self.broken && self.is_done() {
            return;
        }
        // The far end is told by a reset, the near one, which has none, by the flag.
        self.reset.store(true, Ordering::Release);
        for end in &self.ends {
            end.reset_on_close();
        }
    }
}
