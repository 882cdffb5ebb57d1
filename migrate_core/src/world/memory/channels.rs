//! A source's channels, and which page takes which.

use std::sync::Arc;

use super::encoder::{Encoder, BATCH};
use super::lane::{Counters, Lane};
use super::Sending;
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::GuestMemory;
use crate::link::Stream;
use crate::wire::{Reader, MOST_PAGES};
use crate::world::Sent;

/// Pages that keep to one channel: all versions of a page take the same one, so that they arrive in order.
const GROUP: u64 = 1 << 10;

/// The sending ends of a link, with their threads. Opening them can fail, so it comes before a guest is
/// taken from where it is.
pub struct Channels {
    pub(super) lanes: Vec<Lane>,
    pub(super) replies: Reader<Stream>,
    pub(super) counters: Arc<Counters>,
}

impl Channels {
    /// For pages of `memory`, over `streams`, one a channel.
    pub fn open(memory: &Arc<GuestMemory>, streams: Vec<Stream>, sending: &Sending) -> Result<Self> {
        let Some(first) = streams.first() else {
            return Err(Error::usage("a migration needs at least one channel"));
        };
        let replies = Reader::new(first.try_clone()?, memory.pages());
        let (counters, count) = (Arc::new(Counters::default()), streams.len());
        let lane = |stream: Stream| {
            stream.set_write_timeout(Some(sending.stall))?;
            stream.set_read_timeout(Some(sending.stall))?;
            let encoder = Encoder::new(memory, &counters, sending, count)?;
            Lane::new(stream, Arc::clone(memory), Arc::clone(&counters), sending.find_zeros, encoder)
        };
        let lanes = streams.into_iter().map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, replies, counters })
    }
}

/// A look at a source's counters from any thread.
#[derive(Debug, Clone)]
pub struct Gauge(pub(super) Arc<Counters>);

impl Gauge {
    /// What was put on the link so far.
    pub fn sent(&self) -> Sent {
        self.0.sent()
    }
}

/// Cuts runs so that each piece fits a section.
pub(super) fn pieces(runs: &[Run]) -> impl Iterator<Item = Run> + '_ {
    runs.iter().flat_map(|run| {
        let firsts = run.range().step_by(MOST_PAGES as usize);
        firsts.map(|first| Run { first, pages: MOST_PAGES.min(run.end() - first) })
    })
}

/// The same where pages are encoded: in groups of a batch, and one job for each channel, so that all encoders have
/// a part of each chunk.
pub(super) fn by_batch(runs: &[Run], channels: u64) -> Vec<(u64, Vec<Run>)> {
    let mut shares: Vec<(u64, Vec<Run>)> = (0..channels).map(|channel| (channel, Vec::new())).collect();
    for (channel, pieces) in spread(runs, channels, BATCH as u64) {
        shares[channel as usize].1.extend(pieces);
    }
    shares.retain(|(_, pieces)| !pieces.is_empty());
    shares
}

/// Sorts runs by the channel that their pages keep to.
pub(super) fn by_group(runs: &[Run], channels: u64) -> Vec<(u64, Vec<Run>)> {
    spread(runs, channels, GROUP)
}

fn spread(runs: &[Run], channels: u64, group: u64) -> Vec<(u64, Vec<Run>)> {
    if channels == 1 {
        return if runs.is_empty() { Vec::new() } else { vec![(0, runs.to_vec())] };
    }
    let mut groups: Vec<(u64, Vec<Run>)> = Vec::new();
    for run in runs {
        let mut first = run.first;
        while first < run.end() {
            let end = run.end().min((first / group + 1) * group);
            let (channel, piece) = (first / group % channels, Run { first, pages: end - first });
            match groups.last_mut() {
                Some((last, pieces)) if *last == channel => pieces.push(piece),
                _ => groups.push((channel, vec![piece])),
            }
            first = end;
        }
    }
    groups
}
