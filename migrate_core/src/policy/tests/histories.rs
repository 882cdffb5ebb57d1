//! Histories of rounds that no policy changes, and what a policy does with one.

use crate::guest::PAGE;
use crate::policy::{Act, Decision, Policy, Reason, Round, Sample};

const MIB: u64 = 1 << 20;

/// What a round leaves, in MiB, and the link during it, in MiB per second.
pub type Leaves = (u64, u64);

/// The rounds of a guest of `memory` MiB whose rounds leave `leaves`.
pub fn rounds(memory: u64, leaves: impl IntoIterator<Item = Leaves>) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for (left, link) in leaves {
        let round = next(memory, rounds.last(), left, link);
        rounds.push(round);
    }
    rounds
}

fn next(memory: u64, before: Option<&Round>, left: u64, link: u64) -> Round {
    let sent = before.map_or(memory * MIB, |round| round.remaining_bytes);
    let bandwidth = (link * MIB) as f64;
    let start = before.map_or(0.0, |round| round.elapsed);
    // A harvest takes its time even when there is nothing to send.
    let duration = sent as f64 / bandwidth + 0.01;
    let remaining_bytes = left * MIB;
    Round {
        index: before.map_or(0, |round| round.index + 1),
        live: true,
        start,
        duration,
        elapsed: start + duration,
        sent_bytes: sent,
        sent_pages: sent / PAGE as u64,
        total_sent_bytes: before.map_or(0, |round| round.total_sent_bytes) + sent,
        total_sent_pages: before.map_or(0, |round| round.total_sent_pages) + sent / PAGE as u64,
        remaining_pages: remaining_bytes / PAGE as u64,
        remaining_bytes,
        dirty_rate: remaining_bytes as f64 / duration,
        bandwidth,
        expected_blackout: remaining_bytes as f64 / bandwidth,
        memory_bytes: memory * MIB,
        ..Round::default()
    }
}

/// The shared histories: a guest of 1 GiB on a link of 100 MiB/s.
pub fn shared() -> Vec<(&'static str, Vec<Round>)> {
    let steady = |left: u64| (left, 100);
    let saw = [300, 180, 120, 240];
    let drop = [(100, 100), (60, 100), (40, 100), (200, 1), (150, 1), (400, 1), (60, 100), (40, 100)];
    let growing = |n: u32| (50.0 * 1.2f64.powi(n as i32)).min(1024.0) as u64;
    vec![
        ("converging", rounds(1024, (0..14).map(|n| steady(512 >> n)))),
        ("plateau", rounds(1024, (0..400).map(|_| steady(200)))),
        ("oscillating", rounds(1024, saw.into_iter().cycle().take(400).map(steady))),
        ("idle", rounds(1024, [1, 0, 0, 0, 0, 0, 0, 0].map(steady))),
        ("link-drop", rounds(1024, drop.into_iter().chain([(40, 100); 30]))),
        ("growing", rounds(1024, (0..60).map(|n| steady(growing(n))))),
    ]
}

/// The samples of a round, every 100 ms of the migration's time.
fn samples(round: &Round) -> impl Iterator<Item = Sample> + '_ {
    let first = (round.start * 10.0).ceil() as u64;
    let last = (round.elapsed * 10.0).floor() as u64;
    (first..=last).map(move |tenth| {
        let elapsed = tenth as f64 / 10.0;
        let done = ((elapsed - round.start).max(0.0) * round.bandwidth).min(round.sent_bytes as f64) as u64;
        Sample {
            round: round.index,
            elapsed,
            bandwidth: if tenth == 0 { 0.0 } else { round.bandwidth },
            remaining_bytes: round.sent_bytes - done,
            sent_bytes: round.total_sent_bytes - round.sent_bytes + done,
            memory_bytes: round.memory_bytes,
        }
    })
}

/// Something that a policy, or the driver on its behalf, did.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub round: u32,
    pub elapsed: f64,
    pub decision: Decision,
}

/// Runs a policy over `rounds` until the live copy ends, with the samples between if `sampled`. As a
/// driver does, what fits a limit that the policy has set is switched over at a round's end.
pub fn drive(policy: &mut dyn Policy, rounds: &[Round], sampled: bool) -> Vec<Done> {
    let mut done: Vec<Done> = Vec::new();
    let mut allowed = None;
    for (i, round) in rounds.iter().enumerate() {
        let said = samples(round).filter(|_| sampled).map(|sample| (sample.elapsed, Some(sample)));
        for (elapsed, sample) in said.chain([(round.elapsed, None)]) {
            let decision = match &sample {
                Some(sample) => policy.sample(sample).unwrap().unwrap_or_else(Decision::proceed),
                None => policy.decide(round, &rounds[..i]).unwrap(),
            };
            if let Act::Limit { blackout: Some(limit), .. } = decision.act {
                allowed = Some(limit);
            }
            if decision.fires() {
                done.push(Done { round: round.index, elapsed, decision: decision.clone() });
            }
            if decision.act.ends() {
                return done;
            }
        }
        let fits = allowed.filter(|limit| round.expected_blackout <= *limit);
        if let Some(limit) = fits {
            let fit = Decision::switch_over(Reason::met("driver", round.expected_blackout, limit));
            done.push(Done { round: round.index, elapsed: round.elapsed, decision: fit });
            return done;
        }
    }
    done
}
