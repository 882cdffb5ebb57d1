//! SimGrid's model of live migration.

use super::watch::{Moment, Timeout, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over when remaining <= bandwidth x downtime, or after a time-out.
    ///
    /// Without a time-out it never ends for a guest that writes too fast.
    ///
    /// Origin: SimGrid's live-migration plug-in.
    pub struct Simgrid {
        /// Longest blackout to accept (30 ms).
        downtime: f64 [Seconds, 0.0..=2000.0] = 0.03,
        /// Time after which it switches over anyway; none by default.
        timeout: Option<f64> [Seconds, 0.0..=1e9] = (),
    }
}

/// Holds remaining against the link alone: no cost of the switchover is in it.
struct Product(f64);

impl Watch for Product {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        now.round?;
        let (remaining, most) = (now.remaining as f64, now.bandwidth * self.0);
        (remaining <= most).then(|| Decision::switch_over(Reason::met("remaining_bytes", remaining, most)))
    }
}

impl Rule for Simgrid {
    fn build(self) -> Result<Box<dyn Policy>> {
        let mut rules: Vec<Box<dyn Watch>> = vec![Box::new(Product(self.downtime))];
        rules.extend(self.timeout.map(|after| Timeout::after(after, Act::SwitchOver)));
        Ok(Together::policy(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Round, Sample};

    #[test]
    fn thirty_milliseconds_of_the_link_or_a_timeout() {
        let mut policy = Simgrid { downtime: 0.03, timeout: Some(9.0) }.build().unwrap();
        let round =
            |elapsed, remaining_bytes| Round { elapsed, remaining_bytes, bandwidth: 1e6, ..Round::default() };
        let mut fires = |round| policy.decide(&round, &[]).unwrap().fires();
        assert_eq!((fires(round(1.0, 30_001)), fires(round(2.0, 30_000))), (false, true));
        assert_eq!((fires(round(8.9, 1 << 30)), fires(round(9.0, 1 << 30))), (false, true));
        let sample = Sample { elapsed: 9.0, ..Sample::default() };
        assert_eq!(policy.sample(&sample).unwrap().unwrap().act, Act::SwitchOver);
    }
}
