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
}

impl Line {
    pub(super) fn new(spec: &LinkSpec) -> Result<Self> {
        spec.validate()?;
        let Some(bandwidth) = spec.bandwidth else {
            return Err(Error::usage("a simulated link needs a bandwidth, such as \"1Gbit/s\""));
        };
        let mut outages = spec.outages.clone();
        outages.sort_by(|a, b| a.at.total_cmp(&b.at));
        // A burst is held back by half of the most jitter on average, in each direction.
        Ok(Self { bandwidth, limit: f64::INFINITY, round_trip: spec.rtt + spec.jitter, outages })
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

    /// When `bytes` that begin at `start` are on the link.
    pub(super) fn sent_at(&self, start: f64, bytes: u64, live: bool) -> f64 {
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
            Line::new(&LinkSpec { bandwidth: Some(100.0), outages, ..LinkSpec::default() }).unwrap();
        assert_eq!(line.sent_at(0.0, 100, true), 1.0);
        assert_eq!(line.sent_at(0.0, 150, true), 3.5);
        assert_eq!(line.sent_at(2.2, 300, true), 7.0);
        line.limit(50.0);
        assert_eq!((line.sent_at(10.0, 100, true), line.sent_at(10.0, 100, false)), (12.0, 11.0));
        line.limit(0.0);
        assert_eq!(line.sent_at(10.0, 100, true), 11.0);
        assert!(Line::new(&LinkSpec::default()).unwrap_err().to_string().contains("bandwidth"));
    }
}
