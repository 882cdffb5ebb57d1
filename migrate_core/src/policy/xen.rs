//! Xen's rules for the last round, of the classic tools and of libxl.

use super::{Act, Decision, Policy, Reason, Round, Rule, Sample};
use crate::error::Result;
use crate::guest::PAGE;

/// Bytes per second.
const MBIT: f64 = 1e6 / 8.0;

crate::knobs! {
    /// Xen's classic rule for the last round, and its rate control. It always ends.
    ///
    /// The live copy ends after a round that sent more pages than the round before it while the rate was at
    /// its maximum; or when `rounds` are done; or when a round's sent and skipped pages are fewer than
    /// `pages`; or when more than `factor` x memory was sent. The rate of round 0 is `rate`; that of a later
    /// round is the dirty rate of the round before it and `step` more, at most `most_rate`.
    ///
    /// Variants: ia64 has `rounds` 3; builds without adaptive saving, and one later version, have
    /// `adaptive` off, which drops the first clause and the rate control.
    ///
    /// Origin: Xen, xc_linux_save, xc_domain_save and xc_hvm_save; Clark et al., NSDI 2005.
    pub struct Xen {
        /// Rounds of live copying, round 0 included (29; 3 on ia64).
        rounds: u64 [Count, 1.0..=1e9] = 29,
        /// Fewer pages than this are left to the blackout (50).
        pages: u64 [Count, 0.0..=1e12] = 50,
        /// Most that is sent, as a multiple of memory (3).
        factor: f64 [Ratio, 0.0..=1e6] = 3.0,
        /// Whether the rate is controlled and a round that did not shrink at full rate is the last.
        adaptive: bool [Flag] = true,
        /// Rate of round 0 (100 Mbit/s).
        rate: f64 [BytesPerSecond, 1.0..=1e15] = 100.0 * MBIT,
        /// What a round's rate is above the dirty rate of the round before it (50 Mbit/s).
        step: f64 [BytesPerSecond, 0.0..=1e15] = 50.0 * MBIT,
        /// Greatest rate (500 Mbit/s).
        most_rate: f64 [BytesPerSecond, 1.0..=1e15] = 500.0 * MBIT,
    }
}

crate::knobs! {
    /// The rule of Xen's later library: few pages remain, or enough rounds are done. It always ends.
    ///
    /// Origin: Xen, libxenguest's default pre-copy policy behind libxl.
    pub struct XenLibxl {
        /// Fewer pages than this are left to the blackout (50).
        pages: u64 [Count, 0.0..=1e12] = 50,
        /// Rounds of live copying, round 0 included (5).
        rounds: u64 [Count, 1.0..=1e9] = 5,
    }
}

struct Saver {
    knobs: Xen,
    /// Pages sent in the round before.
    before: Option<u64>,
    /// The rate of the round under way.
    rate: f64,
    announced: bool,
}

impl Rule for Xen {
    fn build(self) -> Result<Box<dyn Policy>> {
        let rate = self.rate.min(self.most_rate);
        Ok(Box::new(Saver { knobs: self, before: None, rate, announced: false }))
    }
}

impl Saver {
    fn last(&self, round: &Round) -> Option<Reason> {
        let knobs = &self.knobs;
        let done = u64::from(round.index) + 1;
        let handled = round.sent_pages.saturating_add(round.skipped_pages);
        let most = knobs.factor * (round.memory_bytes / PAGE as u64) as f64;
        let full = knobs.adaptive && self.rate >= knobs.most_rate;
        let before = self.before.filter(|before| full && round.sent_pages > *before);
        if let Some(before) = before {
            Some(Reason::met("sent_pages", round.sent_pages as f64, before as f64))
        } else if done >= knobs.rounds {
            Some(Reason::met("rounds", done as f64, knobs.rounds as f64))
        } else if handled < knobs.pages {
            Some(Reason::met("sent_and_skipped_pages", handled as f64, knobs.pages as f64))
        } else {
            let total = round.total_sent_pages as f64;
            (total > most).then(|| Reason::met("total_sent_pages", total, most))
        }
    }

    /// Sets the rate of the next round; a decision if it differs.
    fn pace(&mut self, dirty_rate: f64) -> Decision {
        let rate = (dirty_rate + self.knobs.step).min(self.knobs.most_rate);
        if rate == self.rate && self.announced {
            return Decision::proceed();
        }
        (self.rate, self.announced) = (rate, true);
        Decision::new(Act::bandwidth(rate), Reason::met("dirty_rate", dirty_rate, rate))
    }
}

impl Policy for Saver {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let last = self.last(round);
        self.before = Some(round.sent_pages);
        Ok(match last {
            Some(reason) => Decision::switch_over(reason),
            None if self.knobs.adaptive => self.pace(round.dirty_rate),
            None => Decision::proceed(),
        })
    }

    fn sample(&mut self, _sample: &Sample) -> Result<Option<Decision>> {
        if self.announced || !self.knobs.adaptive {
            return Ok(None);
        }
        self.announced = true;
        Ok(Some(Decision::new(Act::bandwidth(self.rate), Reason::text("the rate to begin with"))))
    }
}

impl Rule for XenLibxl {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for XenLibxl {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let done = u64::from(round.index) + 1;
        let reason = if round.remaining_pages < self.pages {
            Reason::met("remaining_pages", round.remaining_pages as f64, self.pages as f64)
        } else if done >= self.rounds {
            Reason::met("rounds", done as f64, self.rounds as f64)
        } else {
            return Ok(Decision::proceed());
        };
        Ok(Decision::switch_over(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::find;

    /// A round that no clause of the rule ends.
    fn calm(index: u32) -> Round {
        Round {
            index,
            sent_pages: 100,
            dirty_rate: 200.0 * MBIT,
            memory_bytes: 1000 * PAGE as u64,
            remaining_pages: 100,
            ..Round::default()
        }
    }

    fn why(spec: &Spec, rounds: &[Round]) -> String {
        let mut policy = find(spec).unwrap();
        let decisions: Vec<Decision> = rounds.iter().map(|r| policy.decide(r, &[]).unwrap()).collect();
        let last = decisions.last().unwrap();
        if last.act == Act::SwitchOver {
            last.reason.quantity.to_string()
        } else {
            String::new()
        }
    }

    #[test]
    fn each_clause_ends_the_copy_alone() {
        let spec = Spec::new("xen");
        assert_eq!(why(&spec, &[calm(27)]), "");
        assert_eq!(why(&spec, &[calm(28)]), "rounds");
        assert_eq!(why(&spec, &[Round { total_sent_pages: 3000, ..calm(1) }]), "");
        assert_eq!(why(&spec, &[Round { total_sent_pages: 3001, ..calm(1) }]), "total_sent_pages");
        assert_eq!(why(&spec, &[Round { sent_pages: 30, skipped_pages: 20, ..calm(1) }]), "");
        let few = Round { sent_pages: 29, skipped_pages: 20, ..calm(1) };
        assert_eq!(why(&spec, &[few]), "sent_and_skipped_pages");
    }

    #[test]
    fn a_round_that_grows_is_the_last_only_at_full_rate() {
        let grown = |index| Round { sent_pages: 101, ..calm(index) };
        let fast = |index| Round { dirty_rate: 450.0 * MBIT, ..calm(index) };
        let spec = Spec::new("xen");
        assert_eq!(why(&spec, &[fast(0), grown(1)]), "sent_pages");
        assert_eq!(why(&spec, &[calm(0), grown(1)]), "", "the rate was 250 Mbit/s");
        assert_eq!(why(&spec, &[fast(0), calm(1)]), "", "as many is not more");
        assert_eq!(why(&spec.with("adaptive", false), &[fast(0), grown(1)]), "");
    }

    #[test]
    fn rates_follow_the_dirty_rate() {
        let mut policy = find(&Spec::new("xen")).unwrap();
        let first = policy.sample(&Sample::default()).unwrap().unwrap().act;
        assert_eq!(first, Act::bandwidth(100.0 * MBIT));
        assert_eq!(policy.sample(&Sample::default()).unwrap(), None);
        let mut next =
            |mbit: f64| policy.decide(&Round { dirty_rate: mbit * MBIT, ..calm(0) }, &[]).unwrap().act;
        assert_eq!(next(10.0), Act::bandwidth(60.0 * MBIT));
        assert_eq!(next(300.0), Act::bandwidth(350.0 * MBIT));
        assert_eq!(next(900.0), Act::bandwidth(500.0 * MBIT));
        assert_eq!(next(800.0), Act::Proceed, "the rate does not change");
    }

    #[test]
    fn ia64_has_three_rounds_and_libxl_five() {
        let ia64 = Spec::new("xen").with("rounds", 3);
        assert_eq!([1, 2].map(|i| why(&ia64, &[calm(i)])), ["", "rounds"]);
        let libxl = Spec::new("xen-libxl");
        assert_eq!([3, 4].map(|i| why(&libxl, &[calm(i)])), ["", "rounds"]);
        let remains = |remaining_pages| Round { remaining_pages, ..calm(0) };
        assert_eq!([49, 50].map(|n| why(&libxl, &[remains(n)])), ["remaining_pages", ""]);
    }
}
