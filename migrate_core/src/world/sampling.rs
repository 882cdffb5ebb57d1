//! Between rounds: policies are shown how the copy stands, and the guest's progress is noted.

use std::time::Duration;

use super::{Migration, World};
use crate::policy::{Act, Decision, Policy};
use crate::report::{Happening, Place, Point};

/// How often, from the beginning of round 0 on.
const INTERVAL: Duration = Duration::from_millis(100);

/// When to look, by the world's time.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// None before round 0 and once the guest has been stopped.
    next: Option<Duration>,
}

impl Sampler {
    /// Round 0 begins.
    pub(super) fn begin(&mut self, now: Duration) {
        self.next = Some(now);
    }

    /// The guest is about to be stopped.
    pub(super) fn end(&mut self) {
        self.next = None;
    }

    /// Whether it is time. Looks that were missed in a long chunk are not made up.
    fn is_due(&mut self, now: Duration) -> bool {
        let Some(next) = self.next.filter(|next| now >= *next) else { return false };
        let missed = (now - next).as_nanos() / INTERVAL.as_nanos();
        let steps = u32::try_from(missed).map_or(u32::MAX, |missed| missed.saturating_add(1));
        self.next = Some(next + INTERVAL * steps);
        true
    }
}

impl<W: World> Migration<W> {
    /// If it is time, notes the guest's progress and shows `policy` and `watchers` how the copy stands.
    pub(super) fn look(
        &mut self,
        policy: Option<&mut (dyn Policy + '_)>,
        watchers: &mut [(String, Box<dyn Policy>)],
    ) {
        let now = self.world.now();
        if self.outcome.is_some() || self.interrupt.is_some() || !self.sampler.is_due(now) {
            return;
        }
        self.note_progress();
        let Some(ledger) = &mut self.ledger else { return };
        let sample = ledger.sample(now, self.world.sent());
        let decided = policy.map(|policy| policy.sample(&sample));
        let watched: Vec<_> =
            watchers.iter_mut().map(|(name, watcher)| (name.clone(), watcher.sample(&sample))).collect();
        for (name, decision) in watched {
            match decision {
                Ok(decision) => self.shadow_inside(name, sample.round, decision),
                Err(error) => self.shadow_inside(name, sample.round, Some(super::broken(&error))),
            }
        }
        match decided {
            Some(Ok(Some(decision))) => self.act_inside(sample.round, decision),
            Some(Err(error)) => self.fail(error),
            _ => {}
        }
    }

    /// Notes how far the guest has come at the source, where the world knows.
    pub(super) fn note_progress(&mut self) {
        if let Some(operations) = self.world.operations() {
            let time = self.world.now().as_secs_f64();
            let throttle = self.throttle;
            self.points.push(Point { time, operations, throttle, place: Place::Source });
        }
    }

    /// Honours a decision in the middle of `round`. What ends the live copy cuts the round short, if the
    /// strategy can do that; else it is done at the round's end.
    fn act_inside(&mut self, round: u32, decision: Decision) {
        if !self.heed(round, &decision) {
            return;
        }
        match decision.act {
            Act::Abort => self.abort(&decision.reason.text),
            Act::SwitchOver | Act::PostCopy => self.interrupt = self.delayed(decision),
            _ => {}
        }
    }

    /// Notes what a policy that only watches would have done in the middle of a round: once, where it says
    /// the same at each look.
    fn shadow_inside(&mut self, policy: String, round: u32, decision: Option<Decision>) {
        let Some(decision) = decision.filter(Decision::fires) else { return };
        let said = |what: &Happening| match what {
            Happening::Shadow { policy: name, decision, .. } if *name == policy => Some(decision.act),
            _ => None,
        };
        let before = self.events.iter().rev().find_map(|event| said(&event.what));
        if before != Some(decision.act) {
            self.mark(Happening::Shadow { policy, round, decision });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_at_the_beginning_and_every_interval_and_missed_ones_are_left_out() {
        let (mut sampler, ms) = (Sampler::default(), Duration::from_millis);
        assert!(!sampler.is_due(ms(5)));
        sampler.begin(ms(7));
        let due: Vec<u64> = (7..1000)
            .filter(|now| !(300..550).contains(now))
            .filter(|now| sampler.is_due(ms(*now)))
            .collect();
        assert_eq!(due, [7, 107, 207, 550, 607, 707, 807, 907]);
        sampler.end();
        assert!(!sampler.is_due(ms(5000)));
    }
}
