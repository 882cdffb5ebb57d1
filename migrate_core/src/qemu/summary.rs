//! What is in a capture, summed up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::blocks::Blocks;
use super::capture::{Capture, FileInfo};
use super::description::Description;
use super::distinct::Distinct;
use super::event::{At, Command, Content, Event, PageKind, Section, SectionKind, Setting, Sink, Uuid};
use super::marks::Marks;
use super::multifd::Packing;
use super::passes::{PassKind, Passes};
use super::stream::MOST_DESCRIPTION;
use super::times::Times;
use crate::error::{Error, Result};

/// Most passes that are told apart; what follows is counted to the last.
const MOST_PASSES: usize = 1024;
/// Most commands and device sections that are listed.
const MOST_LISTED: usize = 1 << 16;

/// Pages by kind, and the bytes that they took in the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Pages sent as they are.
    pub raw: u64,
    /// Pages that were all zeros.
    pub zero: u64,
    /// Pages sent as what had changed.
    pub xbzrle: u64,
    /// Pages sent compressed.
    pub compressed: u64,
    /// Of all these, those that had been sent before.
    pub sent_again: u64,
    /// Bytes in the stream, heads included.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, kind: PageKind, bytes: u64, again: bool) {
        let count = match kind {
            PageKind::Raw => &mut self.raw,
            PageKind::Zero => &mut self.zero,
            PageKind::Xbzrle => &mut self.xbzrle,
            PageKind::Compressed => &mut self.compressed,
        };
        *count += 1;
        self.sent_again += u64::from(again);
        self.bytes += bytes;
    }

    /// All pages.
    pub fn pages(&self) -> u64 {
        self.raw + self.zero + self.xbzrle + self.compressed
    }
}

/// A RAM block, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct BlockSummary {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub block_bytes: u64,
    /// Pages that came at least once.
    pub distinct_pages: u64,
    /// All that came.
    pub counts: Counts,
}

/// A pass over memory. Where one ends is inferred.
#[derive(Debug, Clone, Serialize)]
pub struct Pass {
    /// What it is.
    pub kind: PassKind,
    /// Channel and position of its first page.
    pub channel: usize,
    /// Position of its first page in that channel.
    pub offset: u64,
    /// When its first and its last page came, in seconds since the first connection, where that is known.
    pub times: Option<(f64, f64)>,
    /// All pages of it.
    pub counts: Counts,
    /// By block: their names, and what came of each.
    pub blocks: BTreeMap<String, Counts>,
}

/// A device's section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceSection {
    /// Its name.
    pub name: String,
    /// Its instance.
    pub instance: u32,
    /// The version of its format.
    pub version: u32,
    /// Where its head begins.
    pub offset: u64,
    /// Bytes of its state.
    pub bytes: u64,
    /// How it stands among others of its device.
    pub kind: SectionKind,
}

/// Where a capture breaks its format, or ends too early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Position in the channel.
    pub offset: u64,
    /// What is there, and what was expected.
    pub reason: String,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// The files.
    pub files: Vec<FileInfo>,
    /// The machine type; none for types up to 2.3.
    pub machine: Option<String>,
    /// Size of a page in bytes.
    pub page_bytes: u64,
    /// The virtual machine's UUID, if the stream has it.
    pub uuid: Option<String>,
    /// Capabilities that the stream names.
    pub capabilities: Vec<String>,
    /// What was used, as the stream shows: `return-path`, `postcopy`, `xbzrle`, `compress`, `multifd`, ...
    pub features: Vec<&'static str>,
    /// Bytes read on all channels.
    pub bytes: u64,
    /// Bytes of all RAM blocks.
    pub memory_bytes: u64,
    /// All pages.
    pub pages: Counts,
    /// The share of raw pages whose content had come before (in a sample, for large captures).
    pub duplicate_share: Option<f64>,
    /// The RAM blocks.
    pub blocks: Vec<BlockSummary>,
    /// The passes.
    pub passes: Vec<Pass>,
    /// The sections of devices.
    pub devices: Vec<DeviceSection>,
    /// Commands with their positions, as they are listed.
    pub commands: Vec<(u64, String)>,
    /// Bytes of the VM description; `None` without one.
    pub description_bytes: Option<u64>,
    /// Bytes after the end.
    pub trailing_bytes: u64,
    /// Seconds from the first connection to the last byte, where a receiver noted them.
    pub seconds: Option<f64>,
    /// Whether all of it was there and right.
    pub complete: bool,
    /// The first offence.
    pub problem: Option<Problem>,
}

/// Reads a capture to its end, or to the first offence, which is part of the summary.
///
/// # Errors
/// Anything but [`Error::Stream`].
pub fn summarise(capture: &mut Capture) -> Result<Summary> {
    let mut tally = Tally { times: capture.times().clone(), ..Tally::default() };
    let problem = match capture.run(&mut tally).and_then(|()| tally.compare()) {
        Ok(()) => None,
        Err(Error::Stream { offset, reason }) => Some(Problem { offset, reason }),
        Err(other) => return Err(other),
    };
    let mut summary = tally.finish(capture.blocks());
    summary.page_bytes = capture.page_bytes();
    summary.files = capture.files().to_vec();
    summary.seconds = capture.times().end();
    summary.complete = problem.is_none();
    summary.problem = problem;
    Ok(summary)
}

/// A block's figures as they grow.
#[derive(Debug, Default)]
struct OfBlock {
    counts: Counts,
    sent: Marks,
}

/// A pass's figures as they grow, with the number of the block.
#[derive(Debug)]
struct OfPass {
    kind: PassKind,
    at: At,
    times: Option<(f64, f64)>,
    counts: Counts,
    blocks: BTreeMap<usize, Counts>,
}

/// Sums events up.
#[derive(Debug, Default)]
pub struct Tally {
    summary: Summary,
    times: Times,
    passes: Passes,
    of_passes: Vec<OfPass>,
    of_blocks: Vec<OfBlock>,
    distinct: Distinct,
    furthest: Vec<u64>,
    section_bytes: u64,
    description: Vec<u8>,
}

impl Tally {
    fn page(&mut self, at: At, page: &super::event::Page<'_>, page_bytes: u64) {
        if page.block >= self.of_blocks.len() {
            self.of_blocks.resize_with(page.block + 1, OfBlock::default);
        }
        let of_block = &mut self.of_blocks[page.block];
        let again = of_block.sent.set(page.offset / page_bytes);
        let (number, kind) = self.passes.current();
        let number = number.min(MOST_PASSES - 1).min(self.of_passes.len());
        if number == self.of_passes.len() {
            let (counts, blocks) = (Counts::default(), BTreeMap::new());
            self.of_passes.push(OfPass { kind, at, times: None, counts, blocks });
        }
        let pass = &mut self.of_passes[number];
        if let Some(now) = self.times.at(at) {
            let (start, end) = pass.times.unwrap_or((now, now));
            pass.times = Some((start.min(now), end.max(now)));
        }
        let in_pass = pass.blocks.entry(page.block).or_default();
        for counts in [&mut of_block.counts, &mut pass.counts, in_pass, &mut self.summary.pages] {
            counts.add(page.kind, at.bytes, again);
        }
        match page.content {
            Content::Xbzrle(_) => self.feature("xbzrle"),
            Content::Compressed(_) => self.feature("compress"),
            Content::Raw(bytes) => self.distinct.add(bytes),
            Content::Fill(_) | Content::Packed => {}
        }
    }

    /// The furthest position of each channel adds up to the bytes of all.
    fn see_bytes(&mut self, at: At) {
        if at.channel >= self.furthest.len() {
            self.furthest.resize(at.channel + 1, 0);
        }
        let furthest = &mut self.furthest[at.channel];
        *furthest = (*furthest).max(at.offset + at.bytes);
    }

    fn feature(&mut self, name: &'static str) {
        if !self.summary.features.contains(&name) {
            self.summary.features.push(name);
        }
    }

    fn setting(&mut self, setting: Setting<'_>) {
        match setting {
            Setting::Capability { name } => self.summary.capabilities.push(name.to_owned()),
            Setting::Uuid { uuid } => self.summary.uuid = Some(Uuid(uuid).to_string()),
            Setting::TargetPageBits { .. } => {}
        }
    }

    fn command(&mut self, at: At, command: &Command<'_>) {
        match command {
            Command::OpenReturnPath => self.feature("return-path"),
            Command::PostcopyAdvise { .. } => self.feature("postcopy-advised"),
            Command::PostcopyRun => self.feature("postcopy"),
            Command::PostcopyResume => self.feature("recovery"),
            Command::EnableColo => self.feature("colo"),
            _ => {}
        }
        if self.summary.commands.len() < MOST_LISTED {
            let text = serde_json::to_string(command).unwrap_or_default();
            self.summary.commands.push((at.offset, text));
        }
    }

    fn section(&mut self, section: &Section, began: u64) {
        if section.name != "ram" && self.summary.devices.len() < MOST_LISTED {
            self.summary.devices.push(DeviceSection {
                name: section.name.clone(),
                instance: section.instance,
                version: section.version,
                offset: began,
                bytes: self.section_bytes,
                kind: section.kind,
            });
        }
        self.section_bytes = 0;
    }

    fn packet(&mut self, packing: Packing) {
        self.feature("multifd");
        match packing {
            Packing::None => {}
            Packing::Zlib => self.feature("multifd-zlib"),
            Packing::Zstd => self.feature("multifd-zstd"),
            Packing::Qpl | Packing::Uadk | Packing::Qatzip => self.feature("multifd-accelerator"),
        }
    }

    /// Compares the sections with the description that came after them.
    fn compare(&self) -> Result<()> {
        if self.summary.description_bytes.is_none() {
            return Ok(());
        }
        let lengths = Description::read(&self.description, 0)?.lengths();
        let full = self.summary.devices.iter().filter(|section| section.kind == SectionKind::Full);
        for section in full {
            match lengths.get(&section.name, section.instance) {
                Some(bytes) if bytes != section.bytes => {
                    let text = format!("section `{}` has {} bytes of state", section.name, section.bytes);
                    return Err(Error::stream(
                        section.offset,
                        format!("{text}; the VM description says {bytes}"),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(mut self, blocks: &Blocks) -> Summary {
        let name = |index: usize| blocks.get(index).map_or(String::new(), |block| block.name.clone());
        self.of_blocks.resize_with(blocks.list().len(), OfBlock::default);
        let pairs = blocks.list().iter().zip(&self.of_blocks);
        self.summary.blocks = pairs
            .map(|(block, of)| BlockSummary {
                name: block.name.clone(),
                block_bytes: block.bytes,
                distinct_pages: of.sent.count(),
                counts: of.counts,
            })
            .collect();
        self.merge_passes();
        self.summary.passes = self
            .of_passes
            .into_iter()
            .map(|pass| Pass {
                kind: pass.kind,
                channel: pass.at.channel,
                offset: pass.at.offset,
                times: pass.times,
                counts: pass.counts,
                blocks: pass.blocks.into_iter().map(|(index, counts)| (name(index), counts)).collect(),
            })
            .collect();
        self.summary.memory_bytes = blocks.bytes();
        self.summary.bytes = self.furthest.iter().sum();
        self.summary.duplicate_share = self.distinct.duplicate_share();
        if blocks.list().iter().any(|block| block.pages_at.is_some()) {
            self.summary.features.push("mapped-ram");
        }
        self.summary
    }

    /// Pages that never come twice are one pass, in whatever order they come: a background snapshot writes pages as
    /// the guest is about to change them.
    fn merge_passes(&mut self) {
        if self.summary.pages.sent_again > 0 || self.of_passes.iter().any(|pass| pass.kind != PassKind::Live)
        {
            return;
        }
        let Some((first, rest)) = self.of_passes.split_first_mut() else { return };
        for pass in rest {
            first.counts = sum(first.counts, pass.counts);
            first.times = first.times.zip(pass.times).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)));
            for (block, counts) in &pass.blocks {
                let whole = first.blocks.entry(*block).or_default();
                *whole = sum(*whole, *counts);
            }
        }
        self.of_passes.truncate(1);
    }
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        raw: a.raw + b.raw,
        zero: a.zero + b.zero,
        xbzrle: a.xbzrle + b.xbzrle,
        compressed: a.compressed + b.compressed,
        sent_again: a.sent_again + b.sent_again,
        bytes: a.bytes + b.bytes,
    }
}

impl Sink for Tally {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        self.passes.see(at.channel, event);
        self.see_bytes(at);
        match event {
            Event::Machine { name } => self.summary.machine = Some((*name).to_owned()),
            Event::Setting(setting) => self.setting(*setting),
            Event::Command(command) => self.command(at, command),
            Event::Page(page) => self.page(at, page, blocks.page_bytes()),
            Event::Data(bytes) => self.section_bytes += bytes.len() as u64,
            Event::SectionEnds { section, began } => self.section(section, *began),
            Event::Packet(packet) => self.packet(packet.packing),
            Event::Description(piece) => {
                *self.summary.description_bytes.get_or_insert(0) += piece.len() as u64;
                if self.description.len() as u64 + piece.len() as u64 <= MOST_DESCRIPTION {
                    self.description.extend_from_slice(piece);
                }
            }
            Event::Flush => self.feature("multifd-flush"),
            Event::Trailing(bytes) => self.summary.trailing_bytes += bytes.len() as u64,
            _ => {}
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}
