//! libvirt's time-outs: what `virsh migrate` does when it takes too long.

use super::watch::{Moment, Opening, Timeout, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::{Error, Result};

crate::knobs! {
    /// Suspends the guest or goes post-copy after a time, or goes post-copy after the first pass.
    ///
    /// A guest that is suspended writes no more, so that what remains is its blackout. Until then what fits
    /// the limit is switched over. Without `timeout` and `after_precopy` it never ends for a guest that
    /// writes too fast.
    ///
    /// Origin: virsh migrate, `--timeout` with `--timeout-suspend` or `--timeout-postcopy`,
    /// `--postcopy-after-precopy`.
    pub struct LibvirtTimeout {
        /// Time since the migration's start; none by default.
        timeout: Option<f64> [Seconds, 0.0..=1e9] = (),
        /// What then: `suspend` or `postcopy`.
        then: String [Text] = "suspend",
        /// Whether to go post-copy at the end of round 0.
        after_precopy: bool [Flag] = false,
        /// Longest blackout to accept before that (QEMU's 300 ms).
        limit: f64 [Seconds, 0.0..=2000.0] = Opening::QEMU,
    }
}

struct FirstPass;

impl Watch for FirstPass {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        now.round?;
        Some(Decision::new(Act::PostCopy, Reason::text("the first pass is over")))
    }
}

impl Rule for LibvirtTimeout {
    fn build(self) -> Result<Box<dyn Policy>> {
        let then = match self.then.as_str() {
            "suspend" => Act::SwitchOver,
            "postcopy" => Act::PostCopy,
            other => {
                let text = format!("LibvirtTimeout: then must be suspend or postcopy, not `{other}`");
                return Err(Error::usage(text));
            }
        };
        let mut rules = vec![Opening::at(self.limit)];
        rules.extend(self.timeout.map(|after| Timeout::after(after, then)));
        if self.after_precopy {
            rules.push(Box::new(FirstPass));
        }
        Ok(Together::policy(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round, Sample};

    #[test]
    fn the_limit_first_then_the_timeout_in_the_middle_of_a_round() {
        let mut policy = find(&Spec::new("libvirt-timeout").with("timeout", 10)).unwrap();
        let mut at =
            |elapsed| policy.sample(&Sample { elapsed, ..Sample::default() }).unwrap().map(|d| d.act);
        assert_eq!([0.0, 9.9, 10.0].map(&mut at), [Some(Act::blackout(0.3)), None, Some(Act::SwitchOver)]);
    }

    #[test]
    fn postcopy_after_a_time_or_after_the_first_pass() {
        let act = |spec: &Spec, elapsed| {
            find(spec).unwrap().decide(&Round { elapsed, ..Round::default() }, &[]).unwrap().act
        };
        let spec = Spec::new("libvirt-timeout").with("timeout", 10).with("then", "postcopy");
        assert_eq!((act(&spec, 9.0), act(&spec, 10.0)), (Act::blackout(0.3), Act::PostCopy));
        assert_eq!(act(&Spec::new("libvirt-timeout").with("after_precopy", true), 0.1), Act::PostCopy);
        assert!(find(&spec.with("then", "abort")).is_err());
    }
}
