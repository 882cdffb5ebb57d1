//! The core of the patterns: programs that write page after page and keep no data.

use std::time::Duration;

use rand_pcg::rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Tick, Work, Workload};
use crate::error::Result;
use crate::guest::content::Content;
use crate::guest::random::{scramble, stream};
use crate::guest::{Region, PAGE};
use crate::knobs::Spec;

/// Chooses the pages that a pattern writes.
pub trait Aim: Serialize + DeserializeOwned + Send + 'static {
    /// The pattern's name in the registry.
    const NAME: &'static str;

    /// Names `count` pages out of `pages` (1 or more) at guest time `now`, each by a call of `write`.
    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        now: Duration,
        random: &mut Pcg32,
        write: impl FnMut(u64),
    ) -> Result<()>;
}

/// A pattern that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pattern<A> {
    aim: A,
    rate: f64,
    content: Content,
    seed: u64,
    writes: u64,
    random: Pcg32,
}

impl<A: Aim> Pattern<A> {
    /// Writes where `aim` says, at `rate` bytes per second (0 for unpaced), what `content` names.
    pub fn new(aim: A, rate: f64, content: &Spec, seed: u64) -> Result<Self> {
        let (content, random) = (Content::find(content)?, Pcg32::seed_from_u64(scramble(seed)));
        Ok(Self { aim, rate, content, seed, writes: 0, random })
    }
}

/// A knob's rate as [`Workload::rate`] has it: 0 stands for as fast as the thread can.
pub fn paced(rate: f64) -> f64 {
    if rate == 0.0 {
        f64::INFINITY
    } else {
        rate
    }
}

/// Pages that a share of `pages` makes: from 1 to all.
pub fn share_of(pages: u64, share: f64) -> u64 {
    ((pages as f64 * share) as u64).clamp(1, pages.max(1))
}

impl<A: Aim> Workload for Pattern<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn rate(&self, _now: Duration) -> f64 {
        paced(self.rate)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let (count, content, seed, writes) =
            (tick.budget / PAGE as u64, &self.content, self.seed, &mut self.writes);
        self.aim.aim(count, ram.pages(), tick.now, &mut self.random, |page| {
            *writes += 1;
            content.write_page(ram, page, &mut stream(seed, *writes));
        })?;
        Ok(Work { written: count * PAGE as u64, operations: count })
    }

    fn foresee(&mut self, pages: u64, tick: Tick, write: &mut dyn FnMut(u64)) -> Option<Result<Work>> {
        let count = tick.budget / PAGE as u64;
        self.writes += count;
        let aimed = self.aim.aim(count, pages, tick.now, &mut self.random, write);
        Some(aimed.map(|()| Work { written: count * PAGE as u64, operations: count }))
    }

    fn check(&self, _ram: &Region) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Value> {
        super::save(self)
    }
}
