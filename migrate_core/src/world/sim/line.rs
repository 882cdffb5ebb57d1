//! The model of a link: when bytes are on it.

use crate::error::{Error, Result};
use crate::link::{LinkSpec, Outage};

/// A link whose bytes go out one after the other.
#[derive(Debug)]
pub(super) struct Line {
    bandwidth: f64,
    /// What a policy allows while the guest runs.
    limit: f64,
    round_trip: f64,
    outages: Vec<Outage>,
    /// Bytes that the sender may be ahead of the link.
    buffer: f64,
    /// When the last byte that was put there has been carried.
    idle_from: f64,
}

impl Line {
    pub(super) fn new(spec: &LinkSpec, buffer: f64) -> Result<Self> {
        spec.validate()?;
        let Some(bandwidth) = spec.bandwidth else {
            return Err(Error::usage("a simulated link needs a bandwidth, such as \"1Gbit/s\""));
        };
        let mut outages = spec.outages.clone();
        outages.sort_by(|a, b| a.at.total_cmp(&b.at));
        // A burst is held back by half of the most jitter on average, in each direction.
        let round_trip = spec.rtt + spec.jitter;
        Ok(Self { bandwidth, limit: f64::INFINITY, round_trip, outages, buffer, idle_from: 0.0 })
    }

    /// Allows `rate` bytes per second while the guest runs; 0 lifts the limit.
    pub(super) fn limit(&mut self, rate: f64) {
        self.limit = if rate > 0.0 { rate } else { f64::INFINITY };
    }

    pub(super) fn round_trip(&self) -> f64 {
        self.round_trip
    }

    /// Seconds that `bytes` take.
    pub(super) fn seconds(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bandwidth
    }

    /// Puts `bytes` there at `now`, behind what is there already: when the sender can go on.
    pub(super) fn put(&mut self, now: f64, bytes: u64, live: bool) -> f64 {
        self.idle_from = self.sent_at(self.idle_from.max(now), bytes, live);
        // A sender that is held to less than the link carries fills no buffer.
        let ahead = if live && self.limit < self.bandwidth { 0.0 } else { self.buffer / self.bandwidth };
        (self.idle_from - ahead).max(now)
    }

    /// When all that was put there has been carried: `now` or later.
    pub(super) fn drained(&self, now: f64) -> f64 {
        self.idle_from.max(now)
    }

    /// When `bytes` that begin at `start` have been carried.
    fn sent_at(&self, start: f64, bytes: u64, live: bool) -> f64 {
        let rate = if live { self.bandwidth.min(self.limit) } else { self.bandwidth };
        let (mut at, mut left) = (start, bytes as f64 / rate);
        for outage in &self.outages {
            let end = outage.at + outage.duration;
            if end <= at {
                continue;
            }
            let free = (outage.at - at).max(0.0);
            if left <= free {
                break;
            }
            left -= free;
            at = end;
        }
        at + left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_outages_and_limits_end_with_the_guest() {
        let outages = vec![
            Outage { at: 5.0, duration: 1.0 },
            Outage { at: 1.0, duration: 2.0 },
            Outage { at: 2.0, duration: 0.5 },
        ];
        let mut line =
            Line::new(&LinkSpec { bandwidth: Some(100.0), outages, ..LinkSpec::default() }, 0.0).unwrap();
        assert_eq!(line.sent_at(0.0, 100, true), 1.0);
        assert_eq!(line.sent_at(0.0, 150, true), 3.5);
        assert_eq!(line.sent_at(2.2, 300, true), 7.0);
        line.limit(50.0);
        assert_eq!((line.sent_at(10.0, 100, true), line.sent_at(10.0, 100, false)), (12.0, 11.0));
        line.limit(0.0);
        assert_eq!(line.sent_at(10.0, 100, true), 11.0);
        assert!(Line::new(&LinkSpec::default(), 0.0).unwrap_err().to_string().contains("bandwidth"));
    }
    #[test]
    fn a_buffer_lets_the_sender_ahead_of_the_link_by_so_many_bytes() {
        let spec = LinkSpec { bandwidth: Some(100.0), ..LinkSpec::default() };
        let mut line = Line::new(&spec, 50.0).unwrap();
        assert_eq!((line.put(0.0, 30, true), line.drained(0.0)), (0.0, 0.3));
        assert_eq!((line.put(0.0, 100, true), line.drained(0.0)), (0.8, 1.3));
        assert_eq!((line.put(5.0, 100, true), line.drained(5.0)), (5.5, 6.0));
        line.limit(50.0);
        assert_eq!((line.put(7.0, 100, true), line.drained(7.0)), (9.0, 9.0));
    }
}
