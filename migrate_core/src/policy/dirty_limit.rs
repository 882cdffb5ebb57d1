//! QEMU's dirty-limit: a quota of dirty bytes for each vCPU, so that only writers are slowed.

use super::auto_converge::Trigger;
use super::qemu::Pending;
use super::watch::{Moment, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

const MIB: f64 = (1u64 << 20) as f64;

crate::knobs! {
    /// QEMU's rule, with a quota of dirty bytes for each vCPU once the guest writes too fast.
    ///
    /// Where auto-converge would throttle for the first time, each vCPU gets the quota, once; [`WriterQuota`]
    /// is how it is kept. vCPUs that do not write are not slowed. It never ends for a guest whose quotas
    /// together are more than the link carries.
    ///
    /// Origin: QEMU 8.1, capability `dirty-limit`, `vcpu-dirty-limit`, `x-vcpu-dirty-limit-period`.
    pub struct QemuDirtyLimit {
        /// Longest blackout to accept (`downtime-limit`, 300 ms).
        limit: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// What each vCPU may dirty (`vcpu-dirty-limit`, 1 MiB/s).
        quota: f64 [BytesPerSecond, 1.0..=1e15] = MIB,
        /// Share of the bytes sent that may be dirtied meanwhile (`throttle-trigger-threshold`, 50 %).
        trigger: f64 [Ratio, 0.01..=1.0] = 0.5,
        /// A period is longer than this (1 s).
        period: f64 [Seconds, 0.0..=3600.0] = 1.0,
    }
}

struct Quota {
    trigger: Trigger,
    quota: Option<f64>,
}

impl Rule for QemuDirtyLimit {
    fn build(self) -> Result<Box<dyn Policy>> {
        let quota = Quota { trigger: Trigger::new(self.trigger, self.period), quota: Some(self.quota) };
        Ok(Together::policy(vec![Box::new(Pending::new(self.limit)), Box::new(quota)]))
    }
}

impl Watch for Quota {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let excess = self.trigger.counts(now.round?)?;
        let act = Act::dirty_rate(self.quota.take()?);
        Some(Decision::new(act, Reason::met("dirty_bytes", excess.dirty, excess.allowed)))
    }
}

/// Keeps one writer to a quota the way QEMU does: a sleep each time it has filled its dirty ring.
///
/// Once a period the writer's rate is held against the quota. Within 25 MiB/s of it nothing changes, which
/// makes the default quota of 1 MiB/s mean anything up to 26. Farther off than 50 % of the greater of the
/// two, the sleep is stepped in proportion; nearer, by a tenth of the time that the ring takes to fill.
///
/// Origin: QEMU, softmmu dirty-limit; `x-vcpu-dirty-limit-period` is 1000 ms.
#[derive(Debug, Clone)]
pub struct WriterQuota {
    /// Bytes per second.
    quota: f64,
    /// Bytes that a full ring stands for.
    ring: f64,
    /// The highest rate ever seen.
    fastest: f64,
    /// Seconds.
    sleep: f64,
}

impl WriterQuota {
    /// How often the rate is to be measured, seconds.
    pub const PERIOD: f64 = 1.0;
    /// How far from the quota nothing changes, bytes per second.
    pub const TOLERANCE: f64 = 25.0 * MIB;
    /// The longest sleep, in multiples of the time that the ring takes to fill.
    pub const MOST: f64 = 99.0;

    /// A writer that may dirty `quota` bytes per second, and sleeps each time it has dirtied `ring` bytes.
    pub fn new(quota: f64, ring: u64) -> Self {
        Self { quota, ring: ring as f64, fastest: 0.0, sleep: 0.0 }
    }

    /// Takes the writer's rate over the last period in bytes per second; gives the seconds that it is to
    /// sleep at each full ring from here on.
    pub fn measured(&mut self, rate: f64) -> f64 {
        self.fastest = self.fastest.max(rate);
        let off = (rate - self.quota).abs();
        if off > Self::TOLERANCE && self.fastest > 0.0 {
            let full = self.ring / self.fastest;
            let step = full * Self::fills(off / rate.max(self.quota));
            let sleep = if rate > self.quota { self.sleep + step } else { self.sleep - step };
            self.sleep = sleep.max(0.0).min(Self::MOST * full);
        }
        self.sleep
    }

    /// The step for a rate that is off by a share, in times that the ring takes to fill.
    fn fills(share: f64) -> f64 {
        if share > 0.5 {
            share / (1.0 - share)
        } else {
            0.1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round};

    #[test]
    fn the_quota_is_set_once_at_the_second_count() {
        let mut policy = find(&Spec::new("qemu-dirty-limit").with("quota", 5e6)).unwrap();
        let mut at = |index: u32| {
            let elapsed = f64::from(index + 1) * 2.0;
            let round = Round {
                elapsed,
                duration: 2.0,
                dirty_rate: 0.9e6,
                total_sent_bytes: (elapsed * 1e6) as u64,
                remaining_bytes: 1 << 40,
                ..Round::default()
            };
            policy.decide(&round, &[]).unwrap().act
        };
        let acts: Vec<Act> = (0..20).map(&mut at).collect();
        let set: Vec<usize> = (0..20).filter(|i| acts[*i] != Act::Proceed).collect();
        assert_eq!((set, acts[1]), (vec![1], Act::dirty_rate(5e6)));
    }

    #[test]
    fn sleeps_step_by_the_distance_from_the_quota() {
        // A ring of 100 MiB fills in half a second at 200 MiB/s.
        let sleep = |rate: f64, sleep: f64| {
            let mut writer =
                WriterQuota { quota: 50.0 * MIB, ring: 100.0 * MIB, fastest: 200.0 * MIB, sleep };
            (writer.measured(rate * MIB) * 1e6).round() as u64
        };
        assert_eq!(sleep(75.0, 0.2), 200_000, "within 25 MiB/s");
        assert_eq!(sleep(25.0, 0.2), 200_000);
        assert_eq!(sleep(76.0, 0.2), 250_000, "a tenth of half a second");
        assert_eq!(sleep(100.0, 0.2), 250_000, "off by 50 % is not more than 50 %");
        assert_eq!(sleep(112.0, 0.2), 820_000, "off by 62 of 112: 1.24 times half a second");
        assert_eq!(sleep(200.0, 0.2), 1_700_000, "off by 75 %: three times half a second");
        assert_eq!(sleep(10.0, 3.0), 1_000_000, "off by 80 %: less by four times half a second");
        assert_eq!(sleep(10.0, 0.2), 0);
        assert_eq!(sleep(200.0, 49.0), 49_500_000, "99 times half a second is the most");
        assert_eq!(sleep(0.0, 5.0), 0, "a writer that stopped does not sleep");
    }

    #[test]
    fn an_idle_writer_never_sleeps() {
        let mut writer = WriterQuota::new(100.0 * MIB, 1 << 20);
        assert_eq!((writer.measured(0.0), writer.measured(0.0)), (0.0, 0.0));
    }
}
