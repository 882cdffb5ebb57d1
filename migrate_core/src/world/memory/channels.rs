//! A source's channels, and which page takes which.

use std::sync::{Arc, PoisonError};

use super::cut::Cut;
use super::encoder::Encoder;
use super::lane::{Counters, Lane};
use super::Sending;
use crate::bitmap::Run;
use crate::codec::BATCH;
use crate::error::{Error, Result};
use crate::guest::GuestMemory;
use crate::link::Stream;
use crate::strategy::Departure;
use crate::track::check_layout;
use crate::wire::{Beat, Reader, MOST_PAGES};
use crate::world::Sent;

/// Pages that keep to one channel: all versions of a page take the same one, so that they arrive in order.
const GROUP: u64 = 1 << 10;

/// The sending ends of a link, with their threads. Opening them can fail, so it comes before a guest is
/// taken from where it is.
pub struct Channels {
    pub(super) lanes: Vec<Lane>,
    pub(super) replies: Reader<Stream>,
    pub(super) counters: Arc<Counters>,
    /// Other handles on all streams that carry pages.
    pub(super) ends: Vec<Stream>,
    /// The stream for remote faults, where execution may move ahead of memory.
    pub(super) faults: Option<Stream>,
    pub(super) cut: Arc<Cut>,
}

impl Channels {
    /// For pages of `memory`, over `streams`, one a channel. Where execution may move ahead of memory the
    /// last one is for remote faults alone.
    pub fn open(memory: &Arc<GuestMemory>, streams: Vec<Stream>, sending: &Sending) -> Result<Self> {
        Self::with_counters(memory, streams, sending, Arc::default())
    }

    /// The same, going on with what was counted before.
    pub(super) fn with_counters(
        memory: &Arc<GuestMemory>,
        mut streams: Vec<Stream>,
        sending: &Sending,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let faults = match sending.departure {
            Departure::Never => None,
            _ => {
                check_layout(&memory.layout())?;
                streams.pop()
            }
        };
        let Some(first) = streams.first() else {
            return Err(Error::usage("a migration needs at least one channel"));
        };
        let replies = Reader::new(first.try_clone()?, memory.pages());
        let cut = Cut::new(&streams)?;
        let ends = streams.iter().map(Stream::try_clone).collect::<Result<_>>()?;
        if let Some(stream) = &faults {
            stream.set_write_timeout(Some(sending.stall))?;
            stream.set_read_timeout(Some(sending.stall))?;
        }
        let count = streams.len();
        let lane = |stream: Stream| {
            stream.set_write_timeout(Some(sending.stall))?;
            stream.set_read_timeout(Some(sending.stall))?;
            let encoder = Encoder::new(memory, &counters, sending, count)?;
            Lane::new(stream, Arc::clone(memory), Arc::clone(&counters), sending.find_zeros, encoder)
        };
        let lanes = streams.into_iter().map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, replies, counters, ends, faults, cut })
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

    /// What the destination said last of remote faults, where execution is ahead of memory.
    pub fn faults(&self) -> Beat {
        *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner)
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
