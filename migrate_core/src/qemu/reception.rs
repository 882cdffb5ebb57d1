//! What a receiver has noted: every section with its moments, passes, throughput, and how it ended.

use std::path::PathBuf;

use serde::Serialize;

use super::event::SectionKind;

/// Most sections that are noted one by one; later ones still count in everything else.
const MOST_SECTIONS: usize = 1 << 17;
/// Most passes that are noted; later ones count as the last of them.
const MOST_PASSES: usize = 1 << 16;
/// Seconds in one step of the timeline.
const STEP: f64 = 0.1;

/// Pages by the way in which they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PageKinds {
    /// Whole, as they are.
    pub raw: u64,
    /// Named as zero.
    pub zero: u64,
    /// As what changed since they were sent last.
    pub xbzrle: u64,
    /// Compressed.
    pub compressed: u64,
}

impl PageKinds {
    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Self) {
        self.raw += other.raw;
        self.zero += other.zero;
        self.xbzrle += other.xbzrle;
        self.compressed += other.compressed;
    }
}

/// A RAM block, as the source lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockSize {
    /// Its name, such as `pc.ram`.
    pub name: String,
    /// Bytes in use.
    pub bytes: u64,
}

/// How a reception ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All of it came, and the source was told so where it asks to be.
    Accepted,
    /// It was ended on purpose; the guest goes on running at the source.
    Dropped,
    /// The source gave up or was lost, or sent what cannot be understood.
    Failed,
}

/// A section, with the moments of its first and last byte. Times are seconds since the first connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// Its kind.
    pub kind: SectionKind,
    /// `ram`, or the device.
    pub name: String,
    /// Position of its first byte in the main channel.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// When it began to come in.
    pub start: f64,
    /// When it had come in.
    pub end: f64,
    /// Pages in it (of the main channel: multifd's have no sections).
    pub pages: PageKinds,
}

/// One walk over memory, as far as addresses show it: QEMU marks no pass on the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pass {
    /// When its first pages came.
    pub start: f64,
    /// When its last pages had come.
    pub end: f64,
    /// Bytes of its pages on the wire, heads included.
    pub bytes: u64,
    /// Its pages.
    pub pages: PageKinds,
}

/// What came in within a tenth of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Step {
    /// Bytes of all channels.
    pub bytes: u64,
    /// Pages of the sections and packets that ended in this step.
    pub pages: PageKinds,
}

/// What a connection was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The stream itself.
    Main,
    /// Pages beside it.
    Multifd,
    /// Urgent pages of a post-copy.
    Preempt,
    /// Nothing came.
    #[default]
    Silent,
}

/// One connection, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Channel {
    /// What it was for.
    pub role: Role,
    /// The number that a multifd channel gives itself.
    pub number: Option<u8>,
    /// Bytes that came in.
    pub bytes: u64,
    /// Where they are kept.
    pub path: Option<PathBuf>,
    /// Points at which it was brought level with the others.
    pub syncs: u64,
    /// Whether the source has closed it.
    pub closed: bool,
}

/// What came in, and when. Times are seconds since the first connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reception {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it was not accepted.
    pub reason: String,
    /// The machine's type, where the stream names it.
    pub machine: Option<String>,
    /// RAM blocks in the source's order.
    pub blocks: Vec<BlockSize>,
    /// Whether the source waits to be told the end.
    pub return_path: bool,
    /// From the first connection to the end.
    pub duration: f64,
    /// When it was seen that the guest was stopped at the source.
    pub stopped: Option<f64>,
    /// When all had come in.
    pub complete: Option<f64>,
    /// Bytes of all channels.
    pub bytes: u64,
    /// Pages of all channels.
    pub pages: PageKinds,
    /// Connections.
    pub channels: Vec<Channel>,
    /// Walks over memory.
    pub passes: Vec<Pass>,
    /// Sections of the main channel, up to 131072.
    pub sections: Vec<Section>,
    /// Sections that were not noted one by one.
    pub more_sections: u64,
    /// Seconds in a step of `timeline`.
    pub step: f64,
    /// Throughput and kinds of pages over time.
    pub timeline: Vec<Step>,
}

impl Reception {
    /// Nothing has come in.
    pub(super) fn begun() -> Self {
        Self {
            outcome: Outcome::Failed,
            reason: String::new(),
            machine: None,
            blocks: Vec::new(),
            return_path: false,
            duration: 0.0,
            stopped: None,
            complete: None,
            bytes: 0,
            pages: PageKinds::default(),
            channels: Vec::new(),
            passes: Vec::new(),
            sections: Vec::new(),
            more_sections: 0,
            step: STEP,
            timeline: Vec::new(),
        }
    }

    fn step_at(&mut self, now: f64) -> &mut Step {
        let index = (now / STEP) as usize;
        if self.timeline.len() <= index {
            self.timeline.resize(index + 1, Step::default());
        }
        &mut self.timeline[index]
    }

    /// `count` bytes have come in on `channel`.
    pub(super) fn count(&mut self, channel: usize, count: u64, now: f64) {
        self.bytes += count;
        self.channels[channel].bytes += count;
        self.step_at(now).bytes += count;
    }

    /// Pages of walk number `pass` have come in.
    pub(super) fn add_pages(&mut self, pass: usize, kinds: &PageKinds, bytes: u64, now: f64) {
        let pass = pass.min(MOST_PASSES - 1);
        self.pages.add(kinds);
        self.step_at(now).pages.add(kinds);
        if self.passes.len() <= pass {
            self.passes.resize(pass + 1, Pass { start: now, ..Pass::default() });
        }
        let noted = &mut self.passes[pass];
        noted.pages.add(kinds);
        noted.bytes += bytes;
        noted.end = now;
    }

    /// A section has come in.
    pub(super) fn add_section(&mut self, section: Section) {
        match self.sections.len() < MOST_SECTIONS {
            true => self.sections.push(section),
            false => self.more_sections += 1,
        }
    }
}
