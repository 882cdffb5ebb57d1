//! How the memory world holds writers back: what policies ask for, as brakes of vCPUs.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::guest::{Brake, Guest, MOST_DUTY, PAGE};
use crate::policy::{Act, WriterQuota};

/// Pages of the dirty ring that a quota is kept by, as QEMU users set it. Its size cancels out: the sleep
/// for a full ring is spread over the first writes that fill it.
const RING_PAGES: u64 = 4096;

/// A writer under a quota.
struct Writer {
    quota: WriterQuota,
    /// Its bytes dirtied until the last look.
    dirtied: u64,
    /// Seconds a first write.
    delay: f64,
}

/// The brakes of a guest's vCPUs.
#[derive(Default)]
pub(super) struct Brakes {
    duty: f64,
    delay: f64,
    /// When rates were measured last.
    since: Duration,
    /// A writer for each vCPU; none without a quota.
    writers: Vec<Writer>,
}

impl Brakes {
    /// Carries out what `act` says of writers, at time `now`.
    pub(super) fn obey(&mut self, act: &Act, guest: &Guest, now: Duration) -> Result<()> {
        match *act {
            Act::Throttle { percent } => self.duty = checked("throttle", percent)?.min(99.0) / 100.0,
            Act::Limit { dirty_rate, write_delay, .. } => {
                if let Some(rate) = dirty_rate {
                    self.set_quota(checked("dirty rate", rate)?, guest, now);
                }
                if let Some(delay) = write_delay {
                    self.delay = checked("delay of first writes", delay)?;
                    self.count(guest);
                }
            }
            _ => return Ok(()),
        }
        self.apply(guest);
        Ok(())
    }

    fn set_quota(&mut self, rate: f64, guest: &Guest, now: Duration) {
        let ring = RING_PAGES * PAGE as u64;
        let writer = |dirtied| Writer { quota: WriterQuota::new(rate, ring), dirtied, delay: 0.0 };
        self.writers = match rate > 0.0 {
            true => guest.vcpus().iter().map(|vcpu| writer(vcpu.dirtied())).collect(),
            false => Vec::new(),
        };
        self.since = now;
        self.count(guest);
    }

    /// First writes are counted while somebody needs to know: it costs writers a little.
    fn count(&self, guest: &Guest) {
        guest.memory().count_first_writes(!self.writers.is_empty() || self.delay > 0.0);
    }

    fn apply(&self, guest: &Guest) {
        for (i, vcpu) in guest.vcpus().iter().enumerate() {
            let quota = self.writers.get(i).map_or(0.0, |writer| writer.delay);
            vcpu.brake(Brake { duty: self.duty.min(MOST_DUTY), write_delay: self.delay + quota });
        }
    }

    /// Holds the rate of each writer against its quota, once a period.
    pub(super) fn regulate(&mut self, guest: &Guest, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        if self.writers.is_empty() || passed < WriterQuota::PERIOD {
            return;
        }
        self.since = now;
        for (writer, vcpu) in self.writers.iter_mut().zip(guest.vcpus()) {
            let dirtied = vcpu.dirtied();
            let rate = (dirtied - writer.dirtied) as f64 / passed;
            writer.dirtied = dirtied;
            writer.delay = writer.quota.measured(rate) / RING_PAGES as f64;
        }
        self.apply(guest);
    }

    /// Lets all writers run freely.
    pub(super) fn release(&mut self, guest: &Guest) {
        *self = Self::default();
        guest.brake(Brake::default());
        guest.memory().count_first_writes(false);
    }
}

fn checked(what: &str, value: f64) -> Result<f64> {
    match value >= 0.0 && value.is_finite() {
        true => Ok(value),
        false => {
            let reason = format!("asked for a {what} of {value}, which must be 0 or more");
            Err(Error::Policy { reason, source: None })
        }
    }
}
