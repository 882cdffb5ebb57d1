//! Remote faults: how many there were, and how long the guest waited for them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Greatest latency that is told apart: an hour, in nanoseconds.
const MOST_NS: u64 = 3_600_000_000_000;
/// Buckets of [`Latency::buckets`]: the last begins at 2^32 us, which is more than an hour.
const BUCKETS: usize = 33;

/// A distribution of times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The shortest.
    pub least: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub most: f64,
    /// How many lasted from 2^N to 2^(N+1) microseconds, from N = 0 on: the buckets of QEMU's
    /// `postcopy-latency-dist`. The first has also what was shorter; empty ones at the end are left out.
    pub buckets: Vec<u64>,
}

/// Remote faults as the destination saw them: from the moment at which it learned that a thread of the
/// guest waits, to the moment at which the page was placed. The way into and out of the kernel is not in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Pages that were asked for.
    pub asked_pages: u64,
    /// Pages that were pushed and never asked for: faults that prepaging avoided, at most. Whether the guest
    /// would have touched them before they came cannot be known.
    pub pushed_pages: u64,
    /// Pages that had been asked for and came first by the push.
    pub overtaken_pages: u64,
    /// Pages that came again although they were there, until the last one was.
    pub sent_twice: u64,
    /// Bytes that came by the push, headers included.
    pub pushed_bytes: u64,
    /// Bytes that came because they were asked for.
    pub asked_bytes: u64,
    /// Pages of zeros that needed no request, filled in where the guest touched them.
    pub filled_pages: u64,
    /// Seconds from the guest's first step at the destination until all of its memory was there.
    pub duration: f64,
    /// Times that the link was lost.
    pub lost_links: u64,
    /// Seconds without a link.
    pub lost_time: f64,
    /// From noticing that the guest waits until the request was on the link.
    pub request: Latency,
    /// From there until the page was here.
    pub transfer: Latency,
    /// From there until the kernel had placed it.
    pub placement: Latency,
    /// The three together.
    pub total: Latency,
}

/// Times as they are measured.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>, Vec<u64>);

impl Latencies {
    /// None yet. Three digits of a value are kept.
    pub fn new() -> Self {
        // These bounds are valid, so the fallback is never taken.
        let histogram = Histogram::new_with_bounds(1, MOST_NS, 3).or_else(|_| Histogram::new(3));
        Self(histogram.unwrap_or_else(|_| unreachable!("three digits are allowed")), vec![0; BUCKETS])
    }

    /// Adds one of so many nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
        let bucket = (ns / 1000).max(1).ilog2() as usize;
        self.1[bucket.min(BUCKETS - 1)] += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile in seconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e9
    }

    /// The distribution.
    pub fn summary(&self) -> Latency {
        let used = self.1.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        Latency {
            count: self.0.len(),
            mean: if self.0.is_empty() { 0.0 } else { self.0.mean() / 1e9 },
            least: if self.0.is_empty() { 0.0 } else { self.0.min() as f64 / 1e9 },
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            most: self.0.max() as f64 / 1e9,
            buckets: self.1[..used].to_vec(),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_of_microseconds() {
        let mut times = Latencies::new();
        for (ns, bucket) in [(0, 0), (999, 0), (1999, 0), (2000, 1), (3999, 1), (4000, 2), (1_024_000, 10)] {
            let before = times.summary().buckets.get(bucket).copied().unwrap_or(0);
            times.record(ns);
            assert_eq!(times.summary().buckets[bucket], before + 1, "{ns} ns");
        }
        times.record(u64::MAX);
        assert_eq!(times.summary().buckets.len(), BUCKETS);
        assert_eq!(times.summary().buckets.iter().sum::<u64>(), times.summary().count);
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut times = Latencies::new();
        (1..=1000).for_each(|us| times.record(us * 1000));
        let seen = times.summary();
        for (value, wanted) in [(seen.p50, 500e-6), (seen.p99, 990e-6), (seen.most, 1e-3), (seen.least, 1e-6)]
        {
            assert!((value - wanted).abs() <= wanted * 2e-3, "{value} against {wanted}");
        }
        assert_eq!(Latencies::new().summary(), Latency::default());
    }
}
