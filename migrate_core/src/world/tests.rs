//! The loop under a virtual clock: a fluid guest on a fluid link, and policies that are shown both.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Migration, Sent, Step, World};
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::knobs::Spec;
use crate::policy::{self, Act, Decision, Policy, Reason, Round, Sample};
use crate::report::{Event, GuestCost, Happening, Outcome, Place, Report};
use crate::strategy::{self, Action, AtSend, Chunk, Observation, Strategy};

/// Pages that the link carries per second.
const LINK: f64 = 100.0;

/// A guest that writes page after page, in proportion to the CPU that it is given.
struct Fluid {
    now: f64,
    /// Pages per second, unthrottled.
    rate: f64,
    throttle: f64,
    writes: f64,
    dirty: Bitmap,
    sent: Sent,
    paused_at: Option<f64>,
    obeyed: Vec<Act>,
    /// What a harvest takes, seconds.
    harvest: f64,
}

impl Fluid {
    /// With a load of `lambda` times the link, in so much memory that round 0 takes `seconds`.
    fn new(lambda: f64, seconds: f64) -> Self {
        Self {
            now: 0.0,
            rate: lambda * LINK,
            throttle: 0.0,
            writes: 0.0,
            dirty: Bitmap::new((seconds * LINK) as u64),
            sent: Sent::default(),
            paused_at: None,
            obeyed: Vec::new(),
            harvest: 0.0,
        }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += seconds;
        if self.paused_at.is_none() {
            let from = self.writes as u64;
            self.writes += self.rate * (1.0 - self.throttle) * seconds;
            (from..self.writes as u64).for_each(|write| self.dirty.set(write % self.dirty.pages()));
        }
    }
}

impl World for Fluid {
    fn now(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }
    fn pages(&self) -> u64 {
        self.dirty.pages()
    }
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }
    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) -> Result<()> {
        self.pass(self.harvest);
        dirty.union_with(&self.dirty);
        if clear {
            self.dirty.clear_all();
        }
        Ok(())
    }
    fn send(&mut self, chunk: &Chunk, _spilled: &mut Bitmap) -> Result<()> {
        assert_eq!(chunk.at_send, AtSend::Keep, "the tests harvest at the round's start");
        let pages = chunk.runs.iter().map(|run: &Run| run.pages).sum::<u64>();
        self.pass(pages as f64 / LINK);
        self.sent.pages += pages;
        self.sent.bytes += pages * PAGE as u64;
        Ok(())
    }
    fn settle(&mut self) -> Result<Sent> {
        Ok(self.sent)
    }
    fn sent(&self) -> Sent {
        self.sent
    }
    fn wait(&mut self) -> Result<()> {
        self.pass(1e-3);
        Ok(())
    }
    fn pause(&mut self) -> Result<()> {
        self.pass(self.harvest);
        self.paused_at = Some(self.now);
        Ok(())
    }
    fn switch_over(&mut self) -> Result<()> {
        Ok(())
    }
    fn abandon(&mut self, _why: &str) {}
    fn obey(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::Proceed => return Ok(()),
            Act::Throttle { percent } if *percent > 99.0 => return Err(Error::usage("too much")),
            Act::Throttle { percent } => self.throttle = percent / 100.0,
            _ => {}
        }
        self.obeyed.push(*act);
        Ok(())
    }
    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }
    fn report(&mut self, report: &mut Report) {
        report.guest_cost = GuestCost { before: Some(self.rate), ..GuestCost::default() };
        report.blackout = self.paused_at.map(|paused| self.now - paused);
    }
    fn operations(&self) -> Option<u64> {
        Some(self.writes as u64)
    }
}

fn pre_copy() -> Box<dyn Strategy> {
    strategy::find(&Spec::new("pre-copy").with("clear", "early").with("chunk_pages", 2)).unwrap()
}

/// Throttles that a policy sets on such a guest, in percent, and the report.
fn throttled(spec: &Spec, lambda: f64) -> (Vec<f64>, Report) {
    let mut migration = Migration::new(Fluid::new(lambda, 50.0), pre_copy());
    let cap = Spec::new("max-rounds").with("rounds", 40).with("then", "abort");
    let both = Spec::new("any-of").with("policies", serde_json::json!([spec, cap]));
    let mut policy = policy::find(&both).unwrap();
    migration.run(policy.as_mut(), &mut [], |_, _| {});
    let (report, world) = migration.finish(Report::default());
    let steps = world.obeyed.iter().filter_map(|act| match act {
        Act::Throttle { percent } => Some(*percent),
        _ => None,
    });
    (steps.collect(), report)
}

/// Oracle 2.7: the least k with lambda (1 - q_k) <= 0.5, q = 0.2, 0.3 .. 0.9, 0.99.
#[test]
fn auto_converge_takes_the_steps_of_the_closed_form() {
    let oracle = [(0.6, 1, 20.0), (0.9, 4, 50.0), (1.5, 6, 70.0), (3.0, 8, 90.0), (10.0, 9, 99.0)];
    for (lambda, count, last) in oracle {
        let (steps, report) = throttled(&Spec::new("qemu-auto-converge").with("limit", 0.01), lambda);
        assert_eq!((steps.len(), steps[steps.len() - 1]), (count, last), "{lambda}: {steps:?}");
        assert_eq!(report.outcome, Outcome::Completed, "{lambda}");
    }
}

#[test]
fn tail_slow_ends_where_dirtying_is_half_of_sending() {
    let spec = Spec::new("qemu-auto-converge").with("tail_slow", true).with("limit", 0.01);
    for (lambda, end) in [(0.9, 0.4444), (1.5, 0.6667), (3.0, 0.8333)] {
        let steps = throttled(&spec, lambda).0;
        let last = steps[steps.len() - 1] / 100.0;
        assert!((last - end).abs() < 0.01, "{lambda}: {steps:?}");
    }
}

/// Guest work lost is the integral of the throttle, and time >= 2 s x steps x length of a round.
#[test]
fn the_brownout_is_the_integral_of_the_throttle() {
    let (steps, report) = throttled(&Spec::new("qemu-auto-converge").with("limit", 0.01), 3.0);
    let (mut integral, mut since) = (0.0, report.progress[0].clone());
    for point in &report.progress {
        integral += since.throttle / 100.0 * (point.time - since.time);
        since = point.clone();
    }
    let brownout = report.brownout.unwrap();
    assert!((brownout.loss - integral).abs() < 0.01 * integral, "{} {integral}", brownout.loss);
    assert_eq!(brownout.at_destination, None);
    let blackout = report.blackout.unwrap();
    assert!((report.effective_downtime.unwrap() - brownout.loss - blackout).abs() < 1e-9);
    assert!(report.rounds.len() > 2 * steps.len());
}

/// What a policy was shown.
#[derive(Default)]
struct Shown {
    samples: Vec<Sample>,
    rounds: Vec<u32>,
}

/// Notes what it is shown, and says `act` from a time on, inside rounds.
struct Says {
    shown: Arc<Mutex<Shown>>,
    from: f64,
    act: Act,
}

impl Says {
    fn new(from: f64, act: Act) -> (Self, Arc<Mutex<Shown>>) {
        let shown = Arc::default();
        (Self { shown: Arc::clone(&shown), from, act }, shown)
    }
}

impl Policy for Says {
    fn decide(&mut self, round: &Round, _: &[Round]) -> Result<Decision> {
        self.shown.lock().unwrap().rounds.push(round.index);
        let reason = Reason::text("two rounds");
        let end = Decision::switch_over(reason);
        Ok(if round.index == 1 { end } else { Decision::proceed() })
    }

    fn sample(&mut self, sample: &Sample) -> Result<Option<Decision>> {
        self.shown.lock().unwrap().samples.push(sample.clone());
        Ok((sample.elapsed >= self.from).then(|| Decision::new(self.act, Reason::text("time"))))
    }
}

fn run(policy: &mut dyn Policy, strategy: Box<dyn Strategy>) -> (Report, Fluid) {
    let mut migration = Migration::new(Fluid::new(0.5, 10.0), strategy);
    migration.run(policy, &mut [], |_, _| {});
    migration.finish(Report::default())
}

#[test]
fn samples_come_from_the_beginning_on_by_the_worlds_clock() {
    let (mut policy, shown) = Says::new(f64::INFINITY, Act::Abort);
    let (report, _) = run(&mut policy, pre_copy());
    let shown = shown.lock().unwrap();
    let samples = &shown.samples;
    assert_eq!((samples[0].round, samples[0].elapsed, samples[0].remaining_bytes), (0, 0.0, 1000 * 4096));
    // Two rounds, of 10 s and 5 s; the guest is stopped then.
    assert!((149..=151).contains(&samples.len()), "{}", samples.len());
    for (i, sample) in samples.iter().enumerate() {
        assert!((sample.elapsed - i as f64 * 0.1).abs() < 0.03, "{sample:?}");
        let copied = sample.elapsed * LINK * 4096.0;
        assert!((sample.sent_bytes as f64 - copied).abs() < 1.0, "{sample:?}");
        assert_eq!(sample.memory_bytes, 1000 * 4096);
        assert!(i == 0 || (sample.bandwidth - LINK * 4096.0).abs() < 1.0, "{sample:?}");
    }
    assert_eq!(samples.iter().filter(|sample| sample.round == 1).count(), 50);
    assert_eq!(shown.rounds, [0, 1]);
    // The same looks noted the guest's progress, and the pause did.
    assert_eq!(report.progress.len(), samples.len() + 1);
    assert!(report.progress.iter().all(|point| point.place == Place::Source));
}

#[test]
fn a_switchover_inside_a_round_cuts_it_short() {
    let (mut policy, shown) = Says::new(4.0, Act::SwitchOver);
    let (report, _) = run(&mut policy, pre_copy());
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(shown.lock().unwrap().rounds.is_empty(), "a round that is cut short is not asked about");
    let [cut, last] = &report.rounds[..] else { panic!("{:?}", report.rounds) };
    assert!(cut.live && !last.live);
    // Of 1000 pages 400 were sent and 200 written meanwhile, all of them among those.
    assert!((400..=404).contains(&cut.sent_pages), "{cut:?}");
    assert!((798..=802).contains(&cut.remaining_pages), "{cut:?}");
    assert_eq!(last.sent_pages, cut.remaining_pages);
    let decided = |event: &Event| matches!(event.what, Happening::Decided { round: 0, .. });
    assert_eq!(report.events.iter().filter(|event| decided(event)).count(), 1);
}

#[test]
fn nobody_is_asked_once_the_end_is_decided() {
    // Harvests and pauses so long that a look would be due after each.
    for from in [4.0, f64::INFINITY] {
        let (mut policy, shown) = Says::new(from, Act::SwitchOver);
        let mut migration = Migration::new(Fluid { harvest: 0.3, ..Fluid::new(0.5, 10.0) }, pre_copy());
        migration.run(&mut policy, &mut [], |_, _| {});
        let (report, _) = migration.finish(Report::default());
        assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Completed, ""), "{from}");
        let decided = |event: &&Event| matches!(event.what, Happening::Decided { .. });
        let decided: Vec<_> = report.events.iter().filter(decided).collect();
        assert_eq!(decided.len(), 1, "{decided:?}");
        let last = shown.lock().unwrap().samples.pop().unwrap();
        assert!(last.elapsed <= decided[0].time, "{last:?}");
    }
}

/// Pre-copy that cannot end a round early.
struct Whole(Box<dyn Strategy>);

impl Strategy for Whole {
    fn next(&mut self, seen: Observation<'_>) -> Result<Action> {
        self.0.next(seen)
    }
}

#[test]
fn where_rounds_cannot_be_cut_the_decision_waits_for_the_end() {
    let (mut policy, _) = Says::new(4.0, Act::SwitchOver);
    let (report, _) = run(&mut policy, Box::new(Whole(pre_copy())));
    assert_eq!(
        (report.outcome, report.rounds.len(), report.rounds[0].sent_pages),
        (Outcome::Completed, 2, 1000)
    );
}

#[test]
fn libvirts_time_out_fires_inside_a_round() {
    let spec = Spec::new("libvirt-timeout").with("timeout", 3.0);
    let (report, world) = run(policy::find(&spec).unwrap().as_mut(), pre_copy());
    assert_eq!(report.outcome, Outcome::Completed);
    assert!((report.rounds[0].elapsed - 3.0).abs() < 0.11, "{:?}", report.rounds[0]);
    assert_eq!(world.obeyed, [Act::blackout(0.3), Act::SwitchOver]);
}

#[test]
fn other_decisions_inside_a_round_are_honoured_too() {
    let (mut policy, _) = Says::new(4.0, Act::Abort);
    let (report, _) = run(&mut policy, pre_copy());
    assert_eq!((report.outcome, report.reason.as_str(), report.rounds.len()), (Outcome::Aborted, "time", 0));

    let (mut policy, _) = Says::new(4.0, Act::Throttle { percent: 50.0 });
    let (report, _) = run(&mut policy, pre_copy());
    let round = &report.rounds[0];
    assert!(round.throttle == 50.0 && (346..=352).contains(&round.remaining_pages), "{round:?}");
    let throttles: Vec<f64> = report.progress.iter().map(|point| point.throttle).collect();
    assert_eq!((throttles[0], throttles[throttles.len() - 1]), (0.0, 50.0));

    let (mut policy, _) = Says::new(4.0, Act::PostCopy);
    let (report, _) = run(&mut policy, pre_copy());
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("post-copy"), "{}", report.reason);

    let (mut policy, _) = Says::new(4.0, Act::Throttle { percent: 100.0 });
    assert_eq!(run(&mut policy, pre_copy()).0.reason, "too much", "what the world refuses fails the run");
}

#[test]
fn a_policy_that_fails_inside_a_round_fails_the_run() {
    struct Breaks;
    impl Policy for Breaks {
        fn decide(&mut self, _: &Round, _: &[Round]) -> Result<Decision> {
            Ok(Decision::proceed())
        }
        fn sample(&mut self, sample: &Sample) -> Result<Option<Decision>> {
            match sample.elapsed < 2.0 {
                true => Ok(None),
                false => Err(Error::Policy { reason: "it broke".into(), source: None }),
            }
        }
    }
    let (report, _) = run(&mut Breaks, pre_copy());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Failed, "policy: it broke"));
}

#[test]
fn watchers_are_shown_samples_and_noted_once() {
    let (watcher, shown) = Says::new(4.0, Act::SwitchOver);
    let mut watchers: Vec<(String, Box<dyn Policy>)> = vec![("it".into(), Box::new(watcher))];
    let mut migration = Migration::new(Fluid::new(0.5, 10.0), pre_copy());
    let step = migration.next_sampled(None, &mut watchers);
    assert!(matches!(step, Step::Decide(_)), "a watcher ends nothing");
    let (report, _) = migration.finish(Report::default());
    assert!((100..=101).contains(&shown.lock().unwrap().samples.len()));
    let said: Vec<f64> =
        report.events.iter().filter(|e| matches!(e.what, Happening::Shadow { .. })).map(|e| e.time).collect();
    assert!(said.len() == 1 && (said[0] - 4.0).abs() < 0.03, "{said:?}");
}
