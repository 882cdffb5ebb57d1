//! Rules that act between rounds as well as at their ends, and several of them as one policy.

use super::{Act, Decision, Policy, Reason, Round, Sample};
use crate::error::Result;

/// Times are sums of many steps: a step that is short by rounding alone has passed.
const GRAIN: f64 = 1e-9;

/// Whether `length` seconds have passed since `since`.
pub(super) fn due(elapsed: f64, since: f64, length: f64) -> bool {
    elapsed - since >= length - GRAIN
}

/// How the copy stands: at a round's end, or inside one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub elapsed: f64,
    pub remaining: u64,
    /// Since the migration's start.
    pub sent: u64,
    pub bandwidth: f64,
    pub memory: u64,
    /// The round that ends here, if one does.
    pub round: Option<&'a Round>,
}

impl<'a> Moment<'a> {
    pub fn end(round: &'a Round) -> Self {
        Self {
            elapsed: round.elapsed,
            remaining: round.remaining_bytes,
            sent: round.total_sent_bytes,
            bandwidth: round.bandwidth,
            memory: round.memory_bytes,
            round: Some(round),
        }
    }

    pub fn inside(sample: &Sample) -> Self {
        Self {
            elapsed: sample.elapsed,
            remaining: sample.remaining_bytes,
            sent: sample.sent_bytes,
            bandwidth: sample.bandwidth,
            memory: sample.memory_bytes,
            round: None,
        }
    }
}

/// `bytes` in GiB: managers give time by the size of what is to be moved.
pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// A rule that is asked at every moment.
pub(super) trait Watch: Send {
    fn watch(&mut self, now: &Moment) -> Option<Decision>;
}

/// Several rules as one policy. What ends the live copy is done at once; a limit and a throttle that fall
/// into one moment are done one after the other, since a moment has one decision.
#[derive(Default)]
pub(super) struct Together {
    rules: Vec<Box<dyn Watch>>,
    limit: Option<Decision>,
    throttle: Option<Decision>,
}

impl Together {
    pub fn policy(rules: Vec<Box<dyn Watch>>) -> Box<dyn Policy> {
        Box::new(Self { rules, ..Self::default() })
    }

    fn ask(&mut self, now: &Moment) -> Option<Decision> {
        let said: Vec<Decision> = self.rules.iter_mut().filter_map(|rule| rule.watch(now)).collect();
        if let Some(end) = said.iter().find(|decision| decision.act.ends()) {
            return Some(end.clone());
        }
        for decision in said {
            match decision.act {
                Act::Throttle { .. } => self.throttle = Some(decision),
                _ => self.limit = Some(decision),
            }
        }
        self.limit.take().or_else(|| self.throttle.take())
    }
}

impl Policy for Together {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        Ok(self.ask(&Moment::end(round)).unwrap_or_else(Decision::proceed))
    }

    fn sample(&mut self, sample: &Sample) -> Result<Option<Decision>> {
        Ok(self.ask(&Moment::inside(sample)))
    }
}

/// Allows a blackout from the start on. What fits it is switched over by whatever drives the migration.
pub(super) struct Opening(Option<f64>);

impl Opening {
    /// QEMU's limit as long as nobody sets one.
    pub const QEMU: f64 = 0.3;

    pub fn at(limit: f64) -> Box<dyn Watch> {
        Box::new(Self(Some(limit)))
    }
}

impl Watch for Opening {
    fn watch(&mut self, _now: &Moment) -> Option<Decision> {
        let limit = self.0.take()?;
        Some(Decision::new(Act::blackout(limit), Reason::text("the limit to begin with")))
    }
}

/// Switches over at a round's end whose expected blackout is at most the limit.
pub(super) struct Fits(pub f64);

impl Watch for Fits {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let expected = now.round?.expected_blackout;
        let reason = || Reason::met("expected_blackout", expected, self.0);
        (expected <= self.0).then(|| Decision::switch_over(reason()))
    }
}

/// Acts from a time on.
pub(super) struct Timeout {
    /// Seconds since the start.
    pub after: f64,
    /// Seconds more for each GiB of memory.
    pub per_gib: f64,
    /// Bytes that count as memory does.
    pub extra: u64,
    pub then: Act,
}

impl Timeout {
    /// After `seconds` since the start.
    pub fn after(seconds: f64, then: Act) -> Box<dyn Watch> {
        Box::new(Self { after: seconds, per_gib: 0.0, extra: 0, then })
    }

    /// After `seconds` for each GiB of memory.
    pub fn per_gib(seconds: f64, then: Act) -> Box<dyn Watch> {
        Box::new(Self { after: 0.0, per_gib: seconds, extra: 0, then })
    }
}

impl Watch for Timeout {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let limit = self.after + self.per_gib * gib(now.memory.saturating_add(self.extra));
        let over = due(now.elapsed, 0.0, limit);
        over.then(|| Decision::new(self.then, Reason::met("elapsed", now.elapsed, limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Act);

    impl Watch for Says {
        fn watch(&mut self, now: &Moment) -> Option<Decision> {
            (now.elapsed == 0.0).then(|| Decision::new(self.0, Reason::default()))
        }
    }

    fn asked(acts: &[Act]) -> Vec<Act> {
        let rules = acts.iter().map(|act| Box::new(Says(*act)) as Box<dyn Watch>).collect();
        let mut policy = Together::policy(rules);
        let at = |elapsed| Round { elapsed, ..Round::default() };
        [0.0, 1.0, 2.0].map(|elapsed| policy.decide(&at(elapsed), &[]).unwrap().act).to_vec()
    }

    #[test]
    fn a_limit_and_a_throttle_of_one_moment_are_both_done() {
        let (limit, throttle) = (Act::blackout(0.1), Act::Throttle { percent: 20.0 });
        assert_eq!(asked(&[throttle, limit]), [limit, throttle, Act::Proceed]);
        assert_eq!(asked(&[Act::blackout(0.3), limit]), [limit, Act::Proceed, Act::Proceed]);
    }

    #[test]
    fn the_end_comes_before_limits() {
        assert_eq!(asked(&[Act::blackout(0.1), Act::Abort, Act::SwitchOver])[0], Act::Abort);
    }

    #[test]
    fn timeouts_grow_with_memory() {
        let mut timeout = Timeout { after: 5.0, per_gib: 10.0, extra: 1 << 30, then: Act::Abort };
        let at = |elapsed| Round { elapsed, memory_bytes: 2 << 30, ..Round::default() };
        assert_eq!(timeout.watch(&Moment::end(&at(34.9))), None);
        assert_eq!(timeout.watch(&Moment::end(&at(35.0))).unwrap().act, Act::Abort);
    }

    #[test]
    fn steps_of_time_that_are_short_by_rounding_have_passed() {
        assert!(0.3 - 0.2 < 0.1 && due(0.3, 0.2, 0.1));
        assert!(!due(0.2999, 0.2, 0.1));
    }
}
