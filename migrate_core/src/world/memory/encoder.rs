//! The encoder of a lane: copies pages out of a running guest, encodes them, keeps what was sent.
//!
//! It has a thread of its own before the one that sends, so that encoding and sending overlap; the queue
//! between them is short, so that a page which is dirtied again meanwhile is not far behind.

use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::lane::{append, Counters, Job};
use super::pipe::{Pace, Pipe};
use super::Sending;
use crate::bitmap::Run;
use crate::codec::cache::CacheStats;
use crate::codec::{is_zero, Coder, Page, BATCH};
use crate::error::Result;
use crate::guest::{thread_seconds, GuestMemory, PAGE};
use crate::report::CodingRound;
use crate::wire::Encoding;

/// Batches between the encoder and the link.
const QUEUED: usize = 2;

/// Pages on their way, encoded.
pub(super) struct Packet {
    pub(super) encoding: Encoding,
    pub(super) data: Vec<u8>,
    /// How many of the pages are raw in it.
    pub(super) raw_pages: u64,
}

/// What an encoder shares with the thread that sends for it.
pub(super) struct Outlet {
    pub(super) pipe: Arc<Pipe>,
    /// Where buffers go back.
    pub(super) spare: Sender<Vec<u8>>,
}

/// Encodes the pages of a lane.
pub(super) struct Encoder {
    coder: Coder,
    find_zeros: bool,
    memory: Arc<GuestMemory>,
    counters: Arc<Counters>,
    pipe: Arc<Pipe>,
    pace: Pace,
    spare: Receiver<Vec<u8>>,
    /// Copies of the pages at hand, and their numbers.
    pages: Vec<Page>,
    numbers: Vec<u64>,
    round: usize,
    tally: CodingRound,
    /// Of the codec and the cache, at the last round's end.
    told: (Vec<(String, u64)>, CacheStats),
}

impl Encoder {
    /// For one of `lanes` lanes that send `memory`; `None` where no codec is asked for.
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        counters: &Arc<Counters>,
        sending: &Sending,
        lanes: usize,
    ) -> Result<Option<(Self, Outlet)>> {
        let Some(spec) = sending.codec() else { return Ok(None) };
        let share = memory.pages().div_ceil(lanes as u64) as usize + BATCH;
        let coder = Coder::new(spec, lanes, share)?;
        let (pipe, (back, spare)) = (Arc::new(Pipe::default()), channel());
        let outlet = Outlet { pipe: Arc::clone(&pipe), spare: back };
        counters.coding().cache_bytes += coder.cache_bytes();
        let encoder = Self {
            coder,
            find_zeros: sending.find_zeros,
            memory: Arc::clone(memory),
            counters: Arc::clone(counters),
            pipe,
            pace: Pace::default(),
            spare,
            pages: vec![[0; PAGE]; BATCH],
            numbers: Vec::with_capacity(BATCH),
            round: 0,
            tally: CodingRound::default(),
            told: Default::default(),
        };
        Ok(Some((encoder, outlet)))
    }

    /// Takes jobs from `jobs` on a thread of its own; what is to be sent comes out of the queue returned.
    pub(super) fn spawn(
        self,
        jobs: Receiver<Job>,
    ) -> std::io::Result<(std::thread::JoinHandle<Result<()>>, Receiver<Job>)> {
        let (out, ready) = sync_channel(QUEUED);
        let thread = std::thread::Builder::new().name("encoder".into());
        Ok((thread.spawn(move || self.run(&jobs, &out))?, ready))
    }

    fn run(mut self, jobs: &Receiver<Job>, out: &SyncSender<Job>) -> Result<()> {
        for job in jobs {
            let sent = match job {
                Job::Pages(runs) => self.send(&runs, None, out),
                Job::Copied(runs, contents) => self.send(&runs, Some(&contents), out),
                Job::Learnt(learnt) => {
                    self.coder.codec().adopt(&learnt)?;
                    out.send(Job::Learnt(learnt)).is_ok()
                }
                Job::Barrier(done) => {
                    self.end_round();
                    out.send(Job::Barrier(done)).is_ok()
                }
                other => out.send(other).is_ok(),
            };
            if !sent {
                // The thread that sends has failed, and has the reason.
                break;
            }
        }
        self.end_round();
        Ok(())
    }

    /// Sends pages in batches; whether there was somebody to take them.
    fn send(&mut self, runs: &[Run], contents: Option<&[u8]>, out: &SyncSender<Job>) -> bool {
        let pages: Vec<u64> = runs.iter().flat_map(Run::range).collect();
        let mut batches = pages.chunks(BATCH).enumerate();
        batches.all(|(index, batch)| {
            let contents = contents.map(|contents| &contents[index * BATCH * PAGE..]);
            self.send_batch(batch, contents, out)
        })
    }

    fn send_batch(&mut self, batch: &[u64], contents: Option<&[u8]>, out: &SyncSender<Job>) -> bool {
        let began = thread_seconds();
        self.coder.codec().told(self.pace.look(&self.pipe, Instant::now()));
        if contents.is_none() && self.stands_aside(batch) {
            return out.send(self.as_it_is(batch)).is_ok();
        }
        let zeros = self.gather(batch, contents);
        let packet = (!self.numbers.is_empty()).then(|| self.encode());
        self.tally.encode_seconds += thread_seconds() - began;
        let zeros_gone = zeros.is_empty() || out.send(Job::Zeros(zeros)).is_ok();
        zeros_gone
            && packet.is_none_or(|packet| {
                self.pipe.put(packet.data.len() as u64);
                out.send(Job::Encoded(packet)).is_ok()
            })
    }

    fn stands_aside(&mut self, batch: &[u64]) -> bool {
        self.memory.read_page(batch[0], &mut self.pages[0]);
        self.coder.codec().stands_aside(&self.pages[0], batch.len())
    }

    /// A batch straight from memory. What the destination will have of it is not known here.
    fn as_it_is(&mut self, batch: &[u64]) -> Job {
        let mut runs = Vec::new();
        for page in batch {
            append(&mut runs, *page);
            self.coder.forget(*page);
        }
        self.tally.raw_pages += batch.len() as u64;
        self.tally.raw_bytes += (batch.len() * PAGE) as u64;
        Job::Pages(runs)
    }

    /// Copies a batch, but for pages of zeros, which are the answer.
    fn gather(&mut self, batch: &[u64], contents: Option<&[u8]>) -> Vec<Run> {
        let mut zeros = Vec::new();
        self.numbers.clear();
        for (index, page) in batch.iter().enumerate() {
            let place = &mut self.pages[self.numbers.len()];
            match contents {
                Some(contents) => place.copy_from_slice(&contents[index * PAGE..(index + 1) * PAGE]),
                None => self.memory.read_page(*page, place),
            }
            if !(self.find_zeros && is_zero(place)) {
                self.numbers.push(*page);
                continue;
            }
            append(&mut zeros, *page);
            self.coder.pass_zero(*page);
        }
        self.tally.zero_pages += (batch.len() - self.numbers.len()) as u64;
        zeros
    }

    /// Encodes what was gathered.
    fn encode(&mut self) -> Packet {
        let (numbers, pages) = (&self.numbers, &self.pages[..self.numbers.len()]);
        let mut data = self.spare.try_recv().unwrap_or_default();
        data.clear();
        let coded = self.coder.encode(numbers, pages, &mut data);
        let encoding = Encoding {
            runs: runs_of(numbers),
            hash: xxh3_64(pages.as_flattened()),
            based: coded.based,
            bytes: data.len() as u64,
        };
        self.note(coded.raw_pages, data.len() as u64);
        Packet { encoding, data, raw_pages: coded.raw_pages }
    }

    fn note(&mut self, raw_pages: u64, bytes: u64) {
        let raw_bytes = raw_pages * PAGE as u64;
        self.tally.raw_pages += raw_pages;
        self.tally.raw_bytes += raw_bytes;
        self.tally.encoded_pages += self.numbers.len() as u64 - raw_pages;
        self.tally.encoded_bytes += bytes.saturating_sub(raw_bytes);
    }

    /// Ages the cache, and tells what the round did.
    fn end_round(&mut self) {
        let (choices, cache) = &mut self.told;
        let chosen = self.coder.codec().choices();
        for (index, (name, pages)) in chosen.iter().enumerate() {
            let before = choices.get(index).map_or(0, |(_, pages)| *pages);
            if *pages > before {
                self.tally.choices.insert(name.clone(), pages - before);
            }
        }
        *choices = chosen;
        let stats = self.coder.stats();
        self.tally.cache_hits = stats.hits - cache.hits;
        self.tally.cache_misses = stats.misses - cache.misses;
        *cache = stats;
        self.coder.next_round();
        self.counters.coding().add(self.round, &std::mem::take(&mut self.tally));
        self.round += 1;
    }
}

fn runs_of(pages: &[u64]) -> Vec<Run> {
    let mut runs = Vec::new();
    pages.iter().for_each(|page| append(&mut runs, *page));
    runs
}
