//! Worlds: where a strategy's actions are carried out. A world never decides anything.
//!
//! [`Migration`] is the loop: it hands a strategy what happened, has the world do what the strategy
//! answers, and stops at each live round's end for a decision. The same loop runs real memory and the
//! simulator.

mod ledger;
pub mod memory;
mod page_map;
mod sampling;
pub mod sim;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

pub use ledger::{Bandwidth, Ledger, Sent};

use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::policy::{Act, Decision, Policy, Reason, Round};
use crate::report::{Event, Happening, Outcome, Point, Report};
use crate::strategy::{Action, Chunk, Observation, Strategy};
use page_map::Mapper;
use sampling::Sampler;

/// Carries out actions. Times are since the migration's start.
pub trait World {
    /// The time.
    fn now(&self) -> Duration;
    /// Pages of the guest.
    fn pages(&self) -> u64;
    /// Pages of a larger guest that each page stands for, where only a sample of them is followed.
    fn weight(&self) -> u64 {
        1
    }
    /// Readies both sides; round 0 follows.
    fn begin(&mut self) -> Result<()>;
    /// Reads the dirty log into `dirty`, which is empty, clearing it or not.
    fn sync(&mut self, clear: bool, dirty: &mut Bitmap) -> Result<()>;
    /// Sends a chunk. Pages whose bits it cleared without sending them are added to `spilled`.
    fn send(&mut self, chunk: &Chunk, spilled: &mut Bitmap) -> Result<()>;
    /// Waits until everything is on the link; what was put there since the start.
    fn settle(&mut self) -> Result<Sent>;
    /// What was put on the link so far, without waiting.
    fn sent(&self) -> Sent;
    /// Lets the guest run for a moment.
    fn wait(&mut self) -> Result<()>;
    /// Stops the guest.
    fn pause(&mut self) -> Result<()>;
    /// Moves execution ahead of `missing` pages. Once it is told that the guest is the destination's there is
    /// no way back, and [`World::departed`] says so.
    fn depart(&mut self, _missing: &Bitmap) -> Result<()> {
        Err(Error::usage("this world cannot move execution ahead of memory"))
    }
    /// Whether the guest may be the destination's: it never runs at the source again.
    fn departed(&self) -> bool {
        false
    }
    /// Pushes pages to a guest that has departed; adds those that it asked for since the last call to `asked`.
    fn push(&mut self, _runs: &[Run], _asked: &mut Vec<u64>) -> Result<()> {
        Ok(())
    }
    /// Pushes nothing for a moment.
    fn serve(&mut self, _asked: &mut Vec<u64>) -> Result<()> {
        Ok(())
    }
    /// Waits until the destination has every page, and lets the source go.
    fn complete(&mut self) -> Result<()> {
        Ok(())
    }
    /// Moves execution. An error leaves the guest running at the source, unless it says otherwise.
    fn switch_over(&mut self) -> Result<()>;
    /// Ends a run that did not complete: the guest runs on where it was.
    fn abandon(&mut self, why: &str);
    /// Whether the pages that it is told to send are those that it sends, and not a number of them.
    fn knows_pages(&self) -> bool {
        true
    }
    /// How long it takes this world to heed a decision to switch over. The live copy goes on meanwhile.
    fn reaction(&self) -> Duration {
        Duration::ZERO
    }
    /// Carries out a throttle or a limit.
    fn obey(&mut self, act: &Act) -> Result<()>;
    /// Events since the last call, in order.
    fn events(&mut self) -> Vec<Event>;
    /// Fills in what only the world knows.
    fn report(&mut self, report: &mut Report);

    /// Gives the world the switch that cancels the run: whatever it waits for, it is to stop soon after.
    fn watch_for(&mut self, _cancelled: &Arc<AtomicBool>) {}
    /// Whether the guest is the destination's: from then on a cancelled run is a failed one.
    fn has_let_go(&self) -> bool {
        false
    }
    /// Operations that the guest has finished, where they are counted.
    fn operations(&self) -> Option<u64> {
        None
    }
    /// The guest's progress at the destination, from the switchover on, once the migration is complete. May
    /// watch it for a moment, which counts for nothing.
    fn progress_there(&mut self) -> Vec<Point> {
        Vec::new()
    }
}

/// What [`Migration::next_round`] comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A live round is over: [`Migration::act`] must follow.
    Decide(Round),
    /// The link was lost after execution had moved: the guest waits at the destination for what is here.
    /// [`Migration::resume`] goes on over another link.
    Paused(String),
    /// The run is over: [`Migration::finish`] has the report.
    Over,
}

/// What is to be told to the strategy next.
enum Told {
    Began,
    Synced,
    Sent,
    CutShort,
    Decided(Decision),
    Waited,
    Paused,
    SwitchedOver,
    Departed,
    Asked(Vec<u64>),
    Recovered,
    Completed,
}

/// A migration under way, stepped round by round.
pub struct Migration<W: World> {
    world: W,
    strategy: Box<dyn Strategy>,
    ledger: Option<Ledger>,
    told: Option<Told>,
    pages: Bitmap,
    rounds: Vec<Round>,
    events: Vec<Event>,
    sampler: Sampler,
    points: Vec<Point>,
    mapper: Option<Mapper>,
    /// A decision that ends the live copy and was made in the middle of a round.
    interrupt: Option<Decision>,
    /// A decision to switch over that the world has not heeded, and when it does.
    unheeded: Option<(Duration, Decision)>,
    throttle: f64,
    /// The longest blackout that a policy has allowed; from then on what fits it is switched over.
    allowed: Option<f64>,
    outcome: Option<(Outcome, String)>,
    error: Option<Error>,
    /// Why it stands still, if it does.
    paused: Option<String>,
    cancelled: Arc<AtomicBool>,
}

impl<W: World> Migration<W> {
    /// A migration that has not begun.
    pub fn new(mut world: W, strategy: Box<dyn Strategy>) -> Self {
        let pages = Bitmap::new(world.pages());
        let cancelled = Arc::default();
        world.watch_for(&cancelled);
        Self {
            world,
            strategy,
            ledger: None,
            told: None,
            pages,
            rounds: Vec::new(),
            events: Vec::new(),
            sampler: Sampler::default(),
            points: Vec::new(),
            mapper: None,
            interrupt: None,
            unheeded: None,
            throttle: 0.0,
            allowed: None,
            outcome: None,
            error: None,
            paused: None,
            cancelled,
        }
    }

    /// Has the report say which part of memory was sent when, where the world knows.
    #[must_use]
    pub fn mapped(mut self) -> Self {
        self.mapper = self.world.knows_pages().then(|| Mapper::new(self.world.pages()));
        self
    }

    /// A switch that ends the run as aborted at its next action, from any thread.
    pub fn canceller(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// The rounds that are over.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// The world.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// Runs to the end of the next live round, or to the end. Failures do not come back as errors: they
    /// are the run's outcome, with the guest running where the reason says.
    pub fn next_round(&mut self) -> Step {
        self.next_sampled(None, &mut [])
    }

    /// The same, and shows `policy`, and `watchers` in shadow, how the copy stands when round 0 begins and
    /// every 100 ms from then on. A policy's decision in the middle of a round is acted upon at once, which
    /// may end the run without another round's end to decide about.
    pub fn next_sampled(
        &mut self,
        mut policy: Option<&mut (dyn Policy + '_)>,
        watchers: &mut [(String, Box<dyn Policy>)],
    ) -> Step {
        while self.outcome.is_none() && self.paused.is_none() {
            match self.step() {
                Ok(Some(round)) => return Step::Decide(round),
                Ok(None) => self.look(policy.as_deref_mut(), watchers),
                Err(error @ Error::Link { .. }) if self.world.departed() => self.pause(&error),
                Err(_) if self.is_cancelled() && !self.world.has_let_go() => self.abort("cancelled"),
                Err(error) => self.fail(error),
            }
        }
        match &self.paused {
            Some(why) if self.outcome.is_none() => Step::Paused(why.clone()),
            _ => Step::Over,
        }
    }

    fn pause(&mut self, why: &Error) {
        self.mark(Happening::LinkLost { reason: why.to_string() });
        self.paused = Some(why.to_string());
    }

    /// Goes on over another link, which `reconnect` has the world use; it fills in what the destination
    /// lacks. An error leaves the migration paused.
    pub fn resume(&mut self, reconnect: impl FnOnce(&mut W, &mut Bitmap) -> Result<()>) -> Result<()> {
        if self.paused.is_none() || self.outcome.is_some() {
            return Err(Error::usage("only a migration that lost its link in post-copy can be resumed"));
        }
        self.pages.clear_all();
        reconnect(&mut self.world, &mut self.pages)?;
        self.mark(Happening::LinkBack { missing_pages: self.pages.count() });
        self.paused = None;
        self.told = Some(Told::Recovered);
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn fail(&mut self, error: Error) {
        self.world.abandon(&error.to_string());
        self.outcome = Some((Outcome::Failed, error.to_string()));
        self.error = Some(error);
    }

    fn abort(&mut self, reason: &str) {
        self.world.abandon(reason);
        self.outcome = Some((Outcome::Aborted, reason.to_owned()));
    }

    /// Answers the round that [`Migration::next_round`] returned. Without an answer the run proceeds.
    ///
    /// Once a policy has set a blackout limit, a round whose expected blackout fits it ends the live copy,
    /// as `downtime-limit` does in QEMU: policies of managers set that limit and leave the rest to it.
    pub fn act(&mut self, decision: Decision) {
        let Some(round) = self.rounds.last() else { return };
        let (index, expected) = (round.index, round.expected_blackout);
        if !self.heed(index, &decision) {
            return;
        }
        let decision = match (decision.act, self.allowed) {
            (Act::Proceed | Act::Throttle { .. } | Act::Limit { .. }, Some(allowed))
                if expected <= allowed =>
            {
                let fits = Decision::switch_over(Reason::met("expected_blackout", expected, allowed));
                self.mark(Happening::Decided { round: index, decision: fits.clone() });
                fits
            }
            _ => decision,
        };
        match self.delayed(decision) {
            Some(decision) => self.conclude(decision),
            None => self.told = Some(Told::Decided(Decision::proceed())),
        }
    }

    /// The decision, unless the world takes its time to heed it: then it is kept until then, and nobody is asked
    /// again.
    fn delayed(&mut self, decision: Decision) -> Option<Decision> {
        let reaction = self.world.reaction();
        if decision.act != Act::SwitchOver || reaction.is_zero() {
            return Some(decision);
        }
        self.sampler.end();
        self.unheeded = Some((self.world.now() + reaction, decision));
        None
    }

    /// Has the strategy told what was decided. Once that ends the live copy, nobody is asked again.
    fn conclude(&mut self, decision: Decision) {
        if decision.act.ends() {
            self.sampler.end();
        }
        self.told = Some(Told::Decided(decision));
    }

    /// Notes a decision and carries out what it says of throttles and limits; false if that failed, which
    /// ends the run.
    fn heed(&mut self, round: u32, decision: &Decision) -> bool {
        if decision.fires() {
            self.mark(Happening::Decided { round, decision: decision.clone() });
        }
        match decision.act {
            Act::Throttle { percent } => self.throttle = percent,
            Act::Limit { blackout: Some(allowed), .. } => self.allowed = Some(allowed),
            _ => {}
        }
        let obeyed = self.world.obey(&decision.act);
        let done = obeyed.is_ok();
        obeyed.unwrap_or_else(|error| self.fail(error));
        done
    }

    /// Notes what a policy that only watches would have done.
    pub fn shadow(&mut self, policy: &str, decision: Decision) {
        let round = self.rounds.last().map_or(0, |round| round.index);
        self.mark(Happening::Shadow { policy: policy.to_owned(), round, decision });
    }

    fn mark(&mut self, what: Happening) {
        let time = self.world.now().as_secs_f64();
        self.events.push(Event { time, what });
    }

    fn step(&mut self) -> Result<Option<Round>> {
        // A guest that is the destination's can only go on.
        if self.is_cancelled() && !self.world.has_let_go() {
            self.abort("cancelled");
            return Ok(None);
        }
        if self.ledger.is_none() {
            return self.begin().map(|()| None);
        }
        if self.unheeded.as_ref().is_some_and(|(due, _)| self.world.now() >= *due) {
            self.interrupt = self.unheeded.take().map(|(_, decision)| decision);
        }
        let action = match self.told.take() {
            None => self.tell(&Told::Decided(Decision::proceed()))?,
            Some(Told::Sent) if self.interrupt.is_some() && self.strategy.cuts_rounds() => {
                self.tell(&Told::CutShort)?
            }
            Some(told) => self.tell(&told)?,
        };
        self.events.extend(self.world.events());
        self.carry_out(action)
    }

    fn begin(&mut self) -> Result<()> {
        self.world.begin()?;
        let (now, pages) = (self.world.now(), self.world.pages() * self.world.weight());
        self.ledger = Some(Ledger::new(pages * crate::guest::PAGE as u64, now));
        self.sampler.begin(now);
        self.told = Some(Told::Began);
        Ok(())
    }

    fn tell(&mut self, told: &Told) -> Result<Action> {
        self.strategy.next(match told {
            Told::Began => Observation::Began { pages: self.world.pages() },
            Told::Synced => Observation::Synced { dirty: &self.pages },
            Told::Sent => Observation::Sent { spilled: &self.pages },
            Told::CutShort => Observation::CutShort { spilled: &self.pages },
            Told::Decided(decision) => Observation::Decided(decision),
            Told::Waited => Observation::Waited,
            Told::Paused => Observation::Paused,
            Told::SwitchedOver => Observation::SwitchedOver,
            Told::Departed => Observation::Departed,
            Told::Asked(pages) => Observation::Asked { pages },
            Told::Recovered => Observation::Recovered { missing: &self.pages },
            Told::Completed => Observation::Completed,
        })
    }

    fn carry_out(&mut self, action: Action) -> Result<Option<Round>> {
        self.told = Some(match action {
            Action::Sync { clear } => {
                self.pages.clear_all();
                self.world.sync(clear, &mut self.pages)?;
                Told::Synced
            }
            Action::Send(chunk) => {
                self.pages.clear_all();
                self.mapper.iter_mut().for_each(|mapper| mapper.note(chunk.runs.iter().copied()));
                self.world.send(&chunk, &mut self.pages)?;
                let (now, sent) = (self.world.now(), self.world.sent());
                self.ledger.iter_mut().for_each(|ledger| ledger.note(now, &sent));
                Told::Sent
            }
            Action::EndRound { remaining_pages, live } => return self.end_round(remaining_pages, live),
            Action::Wait => {
                self.world.wait()?;
                Told::Waited
            }
            Action::Pause => {
                self.note_progress();
                self.sampler.end();
                self.world.pause()?;
                Told::Paused
            }
            Action::SwitchOver => {
                self.world.switch_over()?;
                Told::SwitchedOver
            }
            Action::Depart { missing } => {
                self.world.depart(&missing)?;
                self.mapper.iter_mut().for_each(|mapper| mapper.note(missing.runs()));
                Told::Departed
            }
            Action::Push(runs) => {
                let mut asked = Vec::new();
                self.world.push(&runs, &mut asked)?;
                Told::Asked(asked)
            }
            Action::Serve => {
                let mut asked = Vec::new();
                self.world.serve(&mut asked)?;
                Told::Asked(asked)
            }
            Action::Complete => {
                self.world.complete()?;
                Told::Completed
            }
            Action::Abort(reason) => {
                self.abort(&reason.text);
                return Ok(None);
            }
            Action::Done => {
                let there = self.world.progress_there();
                self.points.extend(there);
                self.outcome = Some((Outcome::Completed, String::new()));
                return Ok(None);
            }
        });
        Ok(None)
    }

    fn end_round(&mut self, remaining_pages: u64, live: bool) -> Result<Option<Round>> {
        let sent = self.world.settle()?;
        let now = self.world.now();
        let Some(ledger) = &mut self.ledger else {
            return Err(Error::usage("a round ended before the beginning"));
        };
        let mut round = ledger.end_round(now, sent, remaining_pages * self.world.weight(), live);
        round.throttle = self.throttle;
        self.mapper.iter_mut().for_each(|mapper| mapper.end_row(now));
        self.rounds.push(round.clone());
        match self.interrupt.take() {
            // What was decided inside the round is done at its end, without asking again.
            Some(decision) if live => self.conclude(decision),
            _ if live && self.unheeded.is_none() => return Ok(Some(round)),
            _ => self.told = Some(Told::Decided(Decision::proceed())),
        }
        Ok(None)
    }

    /// Asks `policy`, and `watchers` in shadow, at each round's end and between until the run is over. `each`
    /// sees every round with the decision made on it.
    pub fn run(
        &mut self,
        policy: &mut dyn Policy,
        watchers: &mut [(String, Box<dyn Policy>)],
        mut each: impl FnMut(&Round, &Decision),
    ) {
        while let Step::Decide(round) = self.next_sampled(Some(&mut *policy), watchers) {
            if let Some(decision) = self.judge(&round, policy, watchers) {
                each(&round, &decision);
            }
        }
    }

    /// Asks `policy`, and `watchers` in shadow, about the round that [`Migration::next_round`] returned,
    /// and acts. `None` if the policy failed, which ends the run.
    pub fn judge(
        &mut self,
        round: &Round,
        policy: &mut dyn Policy,
        watchers: &mut [(String, Box<dyn Policy>)],
    ) -> Option<Decision> {
        let history = &self.rounds[..self.rounds.len().saturating_sub(1)];
        let decided = policy.decide(round, history);
        let watched: Vec<_> =
            watchers.iter_mut().map(|(name, p)| (name.clone(), p.decide(round, history))).collect();
        for (name, decision) in watched {
            self.shadow(&name, decision.unwrap_or_else(|error| broken(&error)));
        }
        match decided {
            Ok(decision) => {
                self.act(decision.clone());
                Some(decision)
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// The error behind a failed outcome, once.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// The report; a run that is not over is cancelled first. Also gives the world back.
    pub fn finish(mut self, mut report: Report) -> (Report, W) {
        match self.paused.take() {
            Some(why) => self.fail(Error::link(format!(
                "{why}; the guest had moved ahead of its memory and waits at the destination for the rest, \
                 which is here: it was not resumed"
            ))),
            None if self.outcome.is_none() => self.abort("cancelled"),
            None => {}
        }
        self.events.extend(self.world.events());
        self.events.sort_by(|a, b| a.time.total_cmp(&b.time));
        if let Some((outcome, reason)) = self.outcome {
            (report.outcome, report.reason) = (outcome, reason);
        }
        let (now, weight) = (self.world.now(), self.world.weight());
        report.page_map = self.mapper.map(|mapper| mapper.finish(now, weight));
        let sent = self.world.sent();
        (report.sent_bytes, report.sent_pages) = (sent.bytes, sent.pages);
        (report.zero_pages, report.encoded_pages) = (sent.zero_pages, sent.encoded_pages);
        (report.rounds, report.events) = (self.rounds, self.events);
        self.world.report(&mut report);
        report.set_progress(self.points);
        (report, self.world)
    }
}

/// What is noted for a watcher that failed.
fn broken(error: &Error) -> Decision {
    Decision::new(Act::Proceed, Reason::text(error.to_string()))
}
