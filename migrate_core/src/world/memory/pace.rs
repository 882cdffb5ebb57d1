//! The rate of sending that a policy set.

use std::time::{Duration, Instant};

/// Keeps the bytes sent under a rate that a policy set.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limit: Option<(f64, Instant, u64)>,
}

impl Pace {
    pub(super) fn set(&mut self, rate: f64, sent: u64) {
        self.limit = (rate > 0.0).then(|| (rate, Instant::now(), sent));
    }

    /// How long to wait before more may be sent.
    pub(super) fn ahead(&self, sent: u64) -> Duration {
        self.limit.map_or(Duration::ZERO, |(rate, since, before)| {
            Duration::from_secs_f64((sent - before) as f64 / rate).saturating_sub(since.elapsed())
        })
    }
}
