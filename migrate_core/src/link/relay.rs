//! The thread that carries the bytes of a shaped link.
//!
//! One thread for all channels and both directions, so that the bandwidth is shared by turns and no
//! lock is needed. It decides nothing about time: [`Pacer`] stamps each burst as it is read, and
//! [`DelayQueue`] holds it until then.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::burst::Pool;
use super::channel::{Channel, DIRECTIONS};
use super::pacer::{burst_size, Pacer};
use super::shaper::Shared;

/// Bursts read in a row before those that are due get their turn.
const READS: usize = 8;
/// How late, in nanoseconds, the system may wake the relay to save power.
const TIMER_SLACK: u64 = 1_000;

/// All channels of a link, and their time.
pub(super) struct Relay {
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    pacers: [Pacer; 2],
    /// The channel whose turn to be read it is.
    turns: [usize; 2],
    pool: Pool,
}

impl Relay {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let pacers = DIRECTIONS.map(|d| Pacer::new(&shared.spec, d));
        let pool = Pool::new(burst_size(&shared.spec));
        Self { shared, channels: Vec::new(), pacers, turns: [0; 2], pool }
    }

    /// Until no channel is left or the shaper is dropped.
    pub(super) fn run(mut self) {
        // Refused in some sandboxes; then the system's usual 50 microseconds hold.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK));
        while self.shared.admit(&mut self.channels) {
            if self.wait().is_err() {
                return self.shared.give_up();
            }
            for d in DIRECTIONS {
                self.deliver(d);
                self.fill(d);
            }
            self.channels.retain(|channel| !channel.is_done());
        }
    }

    fn deliver(&mut self, d: usize) {
        let now = self.shared.now();
        self.channels.iter_mut().for_each(|channel| channel.deliver(d, now, &mut self.pool));
    }

    /// Reads a few bursts of direction `d`, a burst a channel in turn, while the link has room.
    fn fill(&mut self, d: usize) {
        self.fill_ahead(d);
        for _ in 0..READS {
            if self.pacers[d].room_at() > self.shared.now() {
                return;
            }
            let ready = |i: usize| self.channels[i].is_ready(d) && !self.channels[i].is_ahead();
            let Some(index) = next_turn(self.turns[d], self.channels.len(), ready) else { return };
            self.turns[d] = index + 1;
            // The time is taken after the read: no byte is older than its stamp, no delay is cut.
            let stamp = |count| self.pacers[d].stamp(self.shared.now(), count);
            self.channels[index].read(d, &mut self.pool, stamp);
        }
    }

    /// Reads what goes before all else: it waits for no room.
    fn fill_ahead(&mut self, d: usize) {
        for channel in self.channels.iter_mut().filter(|channel| channel.is_ahead()) {
            for _ in 0..READS {
                if !channel.is_ready(d) {
                    break;
                }
                let stamp = |count| self.pacers[d].stamp_ahead(self.shared.now(), count);
                channel.read(d, &mut self.pool, stamp);
            }
        }
    }

    /// Sleeps until a socket, a release time, room in the buffer or the shaper calls.
    fn wait(&mut self) -> Result<(), Errno> {
        let timeout = self.next_event().map(|at| timespec(at - self.shared.now()));
        let mut watched = Vec::with_capacity(2 * self.channels.len());
        let mut polled = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        for (index, channel) in self.channels.iter().enumerate() {
            for side in DIRECTIONS {
                let flags = channel.interest(side);
                // A socket that hung up would wake the poll at once even if asked about nothing.
                if !flags.is_empty() {
                    watched.push((index, side));
                    polled.push(PollFd::from_borrowed_fd(channel.end(side), flags));
                }
            }
        }
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => (),
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        }
        let seen: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        if !seen[0].is_empty() {
            let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
        }
        for (&(index, side), &seen) in watched.iter().zip(&seen[1..]) {
            self.channels[index].note(side, seen);
        }
        Ok(())
    }

    /// When direction `d`, which has something to read, is to be read: at once if there is room.
    fn next_fill(&self, d: usize) -> f64 {
        let room = self.pacers[d].room_at();
        match room <= self.shared.now() {
            true => room,
            false => self.pacers[d].refill_at(),
        }
    }

    /// When the relay has to act even if no socket stirs.
    fn next_event(&self) -> Option<f64> {
        let releases = self.channels.iter().filter_map(Channel::next_release);
        let ready = |d: &usize| self.channels.iter().any(|channel| channel.is_ready(*d));
        let rooms = DIRECTIONS.into_iter().filter(ready).map(|d| self.next_fill(d));
        releases.chain(rooms).min_by(f64::total_cmp)
    }
}

/// The first of `count` channels that is ready, from `turn` on and round.
fn next_turn(turn: usize, count: usize, ready: impl Fn(usize) -> bool) -> Option<usize> {
    (turn..turn + count).map(|index| index % count).find(|&index| ready(index))
}

fn timespec(seconds: f64) -> Timespec {
    let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::next_turn;

    #[test]
    fn turns_go_round_and_skip_who_is_not_ready() {
        let ready = [true, false, true];
        let pick = |turn| next_turn(turn, 3, |index| ready[index]);
        assert_eq!([0, 1, 2, 3].map(pick), [Some(0), Some(2), Some(2), Some(0)]);
        assert_eq!(next_turn(2, 3, |_| false), None);
        assert_eq!(next_turn(5, 0, |_| true), None);
    }

    /// Four channels that always have something to say get a quarter each.
    #[test]
    fn greedy_channels_share_evenly() {
        let mut served = [0; 4];
        let mut turn = 0;
        for _ in 0..400 {
            let index = next_turn(turn, 4, |_| true).unwrap();
            served[index] += 1;
            turn = index + 1;
        }
        assert_eq!(served, [100; 4]);
    }
}
