//! vMotion's stun during page send: slow first writes to pages until the link is faster.

use super::watch::{Fits, Moment, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// Delays each first write to a page once a round would not shrink.
    ///
    /// A round does not shrink when its dirty rate is at least its send rate, pages sent over time taken. Then
    /// each first write to a page is held up so long that `writers`, together, dirty `share` of the send
    /// rate: with D and T pages per second as they are and as they are to be, the delay grows by
    /// writers x (1 / T - 1 / D), at most to `most_delay`. It never shrinks. What fits the limit is switched
    /// over. It never ends for a guest that writes too fast even so.
    ///
    /// Origin: VMware vSphere 5, which sleeps vCPUs for milliseconds and aims at a switchover under 1 s;
    /// `share` and `most_delay` are ours.
    pub struct VmotionSdps {
        /// Longest blackout to accept, by the estimate (1 s).
        limit: f64 [Seconds, 0.0..=2000.0] = 1.0,
        /// Threads that write: the guest's vCPUs.
        writers: u64 [Count, 1.0..=1e6] = 1,
        /// Dirty rate to reach, as a share of the send rate.
        share: f64 [Ratio, 0.01..=0.99] = 0.8,
        /// Longest delay of one write.
        most_delay: f64 [Seconds, 0.0..=10.0] = 0.1,
    }
}

struct Stun {
    knobs: VmotionSdps,
    delay: f64,
}

impl Rule for VmotionSdps {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Together::policy(vec![Box::new(Fits(self.limit)), Box::new(Stun { knobs: self, delay: 0.0 })]))
    }
}

impl Watch for Stun {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let round = now.round?;
        let page = crate::guest::PAGE as f64;
        // Pages on both sides: headers, or a codec, would tip the scales.
        let send_rate = round.sent_pages as f64 * page / round.duration;
        // As much dirtied as sent is no shrinking, also where a division has rounded it down.
        if round.sent_pages == 0 || round.dirty_rate < send_rate * (1.0 - 1e-9) {
            return None;
        }
        let (is, aim) = (round.dirty_rate / page, self.knobs.share * send_rate / page);
        let more = self.knobs.writers as f64 * (1.0 / aim - 1.0 / is);
        let delay = (self.delay + more).min(self.knobs.most_delay);
        if delay <= self.delay {
            return None;
        }
        self.delay = delay;
        let reason = Reason::met("dirty_rate", round.dirty_rate, send_rate);
        Some(Decision::new(Act::write_delay(delay), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round};

    fn round(dirty_pages: f64) -> Round {
        Round {
            dirty_rate: dirty_pages * 4096.0,
            duration: 0.5,
            sent_pages: 500,
            expected_blackout: 9.0,
            ..Round::default()
        }
    }

    fn micros(spec: &Spec, dirty_pages: &[f64]) -> Vec<Option<u64>> {
        let mut policy = find(spec).unwrap();
        let acts = dirty_pages.iter().map(|pages| policy.decide(&round(*pages), &[]).unwrap().act);
        acts.map(|act| match act {
            Act::Limit { write_delay: Some(delay), .. } => Some((delay * 1e6).round() as u64),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn the_delay_brings_the_dirty_rate_under_the_send_rate() {
        let spec = Spec::new("vmotion-sdps").with("share", 0.5);
        // One writer: 2000 pages per second to 500 is 0.5 ms to 2 ms a page. Then 1000, which is not under.
        assert_eq!(micros(&spec, &[999.0, 2000.0, 500.0, 1000.0]), [None, Some(1500), None, Some(2500)]);
        assert_eq!(micros(&spec.with("writers", 4), &[2000.0]), [Some(6000)]);
    }

    #[test]
    fn a_model_of_writers_ends_at_the_share() {
        // Four writers that need 1 ms for a page: 4000 pages per second on a link of 1000.
        let mut policy = find(&Spec::new("vmotion-sdps").with("writers", 4)).unwrap();
        let Act::Limit { write_delay: Some(delay), .. } = policy.decide(&round(4000.0), &[]).unwrap().act
        else {
            panic!("no delay");
        };
        assert!((4.0 / (0.001 + delay) - 800.0).abs() < 1e-6);
    }

    #[test]
    fn delays_are_bounded_and_a_fit_ends_it() {
        let spec = Spec::new("vmotion-sdps").with("most_delay", 0.001);
        assert_eq!(micros(&spec, &[9000.0, 9000.0]), [Some(1000), None]);
        let fits = Round { expected_blackout: 1.0, ..round(9000.0) };
        assert_eq!(find(&spec).unwrap().decide(&fits, &[]).unwrap().act, Act::SwitchOver);
    }
}
