//! Proxmox VE: double the limit when remaining keeps growing.

use super::watch::{due, Moment, Opening, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// Doubles the limit when remaining has grown, or is zero, more than five times.
    ///
    /// Remaining is looked at every `poll`, and every `poll_near` once the link carries it within a second.
    /// It is read inside rounds too, where it falls: each harvest makes it grow. What fits the limit is
    /// switched over. It never ends for a guest whose remaining stays the same at each look, or does not fit
    /// `most`; with looks between rounds no guest of less than 2000 s of link time is such.
    ///
    /// Origin: Proxmox VE, qemu-server's migration; `migrate_downtime`.
    pub struct Proxmox {
        /// Limit to begin with (`migrate_downtime`, 100 ms).
        initial: f64 [Seconds, 0.001..=2000.0] = 0.1,
        /// Greatest limit (2000 s).
        most: f64 [Seconds, 0.001..=2000.0] = 2000,
        /// Times that are borne (5).
        times: u64 [Count, 0.0..=1e6] = 5,
        /// Time between two looks (1 s).
        poll: f64 [Seconds, 0.0..=3600.0] = 1,
        /// The same near the end (100 ms).
        poll_near: f64 [Seconds, 0.0..=3600.0] = 0.1,
    }
}

struct Doubling {
    knobs: Proxmox,
    limit: f64,
    /// When it looked last, and what remained.
    last: Option<(f64, u64)>,
    count: u64,
}

impl Rule for Proxmox {
    fn build(self) -> Result<Box<dyn Policy>> {
        let limit = self.initial.min(self.most);
        let doubling = Doubling { knobs: self, limit, last: None, count: 0 };
        Ok(Together::policy(vec![Opening::at(limit), Box::new(doubling)]))
    }
}

impl Doubling {
    /// Looks if it is time to: whether remaining has grown or is zero.
    fn grown(&mut self, now: &Moment) -> bool {
        let near = (now.remaining as f64) < now.bandwidth;
        let poll = if near { self.knobs.poll_near } else { self.knobs.poll };
        if self.last.is_some_and(|(when, _)| !due(now.elapsed, when, poll)) {
            return false;
        }
        let before = self.last.replace((now.elapsed, now.remaining));
        now.remaining == 0 || before.is_some_and(|(_, remaining)| now.remaining > remaining)
    }
}

impl Watch for Doubling {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        self.count += u64::from(self.grown(now));
        if self.count <= self.knobs.times || self.limit >= self.knobs.most {
            return None;
        }
        let reason = Reason::met("times_grown", self.count as f64, self.knobs.times as f64);
        (self.count, self.limit) = (0, (self.limit * 2.0).min(self.knobs.most));
        Some(Decision::new(Act::blackout(self.limit), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Sample};

    /// Limits in milliseconds, with the index of the look at which each was set; looks are `every` apart.
    fn limits(
        spec: &Spec,
        every: f64,
        bandwidth: f64,
        remaining: impl Iterator<Item = u64>,
    ) -> Vec<(usize, u64)> {
        let mut policy = find(spec).unwrap();
        let mut look = |i: usize, remaining_bytes| {
            let elapsed = (i + 1) as f64 * every;
            policy.sample(&Sample { elapsed, remaining_bytes, bandwidth, ..Sample::default() }).unwrap()
        };
        let said = remaining.enumerate().filter_map(|(i, bytes)| Some((i, look(i, bytes)?.act)));
        said.map(|(i, act)| match act {
            Act::Limit { blackout: Some(limit), .. } => (i, (limit * 1000.0).round() as u64),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn the_sixth_growth_doubles() {
        let saw = (0..30).map(|i| if i % 2 == 0 { 500 } else { 900 });
        assert_eq!(limits(&Spec::new("proxmox"), 1.0, 1.0, saw), [(0, 100), (11, 200), (23, 400)]);
        let falling = (0..30).map(|i| 1000 - i);
        assert_eq!(limits(&Spec::new("proxmox"), 1.0, 1.0, falling), [(0, 100)]);
        let zeros = std::iter::repeat_n(0, 8);
        assert_eq!(limits(&Spec::new("proxmox"), 1.0, 1.0, zeros), [(0, 100), (5, 200)]);
    }

    #[test]
    fn looks_are_a_second_apart_and_near_the_end_a_tenth() {
        let growing = |looks| (0..looks).map(|i| 1000 + i);
        assert_eq!(limits(&Spec::new("proxmox"), 0.1, 1.0, growing(120)).len(), 2, "12 looks in 12 s");
        assert_eq!(limits(&Spec::new("proxmox"), 0.1, 1e9, growing(50)).len(), 9, "49 growths in 5 s");
    }

    #[test]
    fn two_thousand_seconds_are_the_most() {
        let limits = limits(&Spec::new("proxmox"), 1.0, 1.0, (0..200).map(|i| 1000 + i));
        assert_eq!(limits.last().unwrap().1, 2_000_000);
        assert_eq!(limits.len(), 16, "the first, 14 doublings to 1638.4 s, the last");
    }
}
