//! A smaller stream with the final content only, which a QEMU of the same machine type loads.
//!
//! Each page comes once, memory before devices, and what was said to a destination (pings, post-copy, packages) is left
//! out. State of devices, configuration and VM description are the bytes of the capture. Memory is put together in
//! temporary files first, so that no page has to be kept in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::blocks::{Block, Blocks};
use super::capture::Capture;
use super::event::{At, Command, Event, Section, SectionKind, Setting, Sink};
use super::image;
use crate::codec::is_zero;
use crate::error::{Error, Result};

const ZERO: u64 = 0x02;
const LIST: u64 = 0x04;
const RAW: u64 = 0x08;
const END: u64 = 0x10;
const SAME_BLOCK: u64 = 0x20;
/// Bytes that are read of a RAM block at a time: whole pages of any size.
const PIECE: usize = 1 << 20;

/// Writes the squashed stream of the capture in `paths` to `output`, with `scratch`, a folder of the caller's, for the
/// memory meanwhile. The bytes written.
///
/// # Errors
/// [`Error::Stream`]: the capture is not whole. [`Error::Usage`]: a file cannot be written, or the capture holds memory
/// that is shared and not in it.
pub fn squash<P: AsRef<Path>>(paths: &[P], output: &Path, scratch: &Path) -> Result<u64> {
    let mut capture = Capture::open(paths)?;
    let files = image::extract(&mut capture, scratch)?;
    let images = files.into_iter().map(|(name, path, _)| (name, path)).collect();
    let file = File::create(output).map_err(|error| cannot(output, &error))?;
    let mut sink = Squash::new(BufWriter::with_capacity(PIECE, file), output, images);
    let mut again = Capture::open(paths)?;
    again.run(&mut sink)?;
    sink.finish()
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot write {}: {error}", path.display()))
}

struct Squash {
    to: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    images: Vec<(String, PathBuf)>,
    /// The number of `ram`, once its list is complete.
    started: Option<u32>,
    /// The section that is being copied.
    section: Option<Section>,
    memory: Vec<Block>,
    config: Vec<u8>,
    capabilities: Vec<String>,
    shared: bool,
    /// Whether memory has been written.
    written: bool,
    sections: bool,
    footers: bool,
    description: Vec<u8>,
}

impl Squash {
    fn new(to: BufWriter<File>, path: &Path, images: Vec<(String, PathBuf)>) -> Self {
        Self {
            to,
            path: path.to_owned(),
            bytes: 0,
            images,
            started: None,
            section: None,
            memory: Vec::new(),
            config: Vec::new(),
            capabilities: Vec::new(),
            shared: false,
            written: false,
            sections: false,
            footers: true,
            description: Vec::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(|error| cannot(&self.path, &error))
    }

    /// Header and configuration, before whatever comes first after them.
    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.sections, true) {
            return Ok(());
        }
        let mut config = std::mem::take(&mut self.config);
        let kept: Vec<_> = self.capabilities.iter().filter(|name| *name != "mapped-ram").collect();
        if !kept.is_empty() {
            config.extend(subsection("configuration/capabilities"));
            config.extend((kept.len() as u32).to_be_bytes());
            kept.iter().for_each(|name| config.extend(named(name)));
        }
        self.put(&config)
    }

    fn setting(&mut self, setting: &Setting<'_>) {
        match setting {
            Setting::TargetPageBits { bits } => {
                self.config.extend(subsection("configuration/target-page-bits"));
                self.config.extend(bits.to_be_bytes());
            }
            Setting::Uuid { uuid } => {
                self.config.extend(subsection("configuration/uuid"));
                self.config.extend(uuid);
            }
            Setting::Capability { name } => {
                self.shared |= *name == "x-ignore-shared";
                self.capabilities.push((*name).to_owned());
            }
        }
    }

    fn section_begins(&mut self, section: &Section) -> Result<()> {
        self.begin()?;
        if section.name == "ram" && section.kind != SectionKind::Full {
            return Ok(());
        }
        if section.kind == SectionKind::Full && self.started.is_some() {
            self.memory()?;
        }
        let head = match section.kind {
            SectionKind::Part | SectionKind::End => {
                [&[section.kind as u8 + 1][..], &section.id.to_be_bytes()].concat()
            }
            _ => head(section),
        };
        self.section = Some(section.clone());
        self.put(&head)
    }

    fn section_ends(&mut self, section: &Section, footer: bool) -> Result<()> {
        self.footers = footer;
        if section.name == "ram" && section.kind == SectionKind::Start {
            return self.list(section);
        }
        match self.section.take() {
            Some(section) if footer => self.put(&ending(section.id)),
            _ => Ok(()),
        }
    }

    /// The first section of `ram`: the blocks.
    fn list(&mut self, section: &Section) -> Result<()> {
        self.started = Some(section.id);
        let total: u64 = self.memory.iter().map(|block| block.bytes).sum();
        let mut bytes = head(section);
        bytes.extend((total | LIST).to_be_bytes());
        for block in &self.memory {
            bytes.extend(named(&block.name));
            bytes.extend(block.bytes.to_be_bytes());
            block.address.iter().for_each(|address| bytes.extend(address.to_be_bytes()));
        }
        bytes.extend(END.to_be_bytes());
        self.put(&bytes)?;
        self.footer(section.id)
    }

    fn footer(&mut self, id: u32) -> Result<()> {
        if self.footers {
            self.put(&ending(id))
        } else {
            Ok(())
        }
    }

    /// All pages, in the last section of `ram`.
    fn memory(&mut self) -> Result<()> {
        let Some(id) = self.started else { return Ok(()) };
        if std::mem::replace(&mut self.written, true) {
            return Ok(());
        }
        if self.shared {
            return Err(Error::usage(
                "memory that is shared (x-ignore-shared) is not in the capture: nothing to squash",
            ));
        }
        self.put(&[&[3][..], &id.to_be_bytes()].concat())?;
        for (name, path) in std::mem::take(&mut self.images) {
            self.block(&name, &path)?;
        }
        self.put(&END.to_be_bytes())?;
        self.footer(id)
    }

    fn block(&mut self, name: &str, path: &Path) -> Result<()> {
        let unreadable =
            |error: std::io::Error| Error::usage(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let (mut buffer, mut at, mut same) = (vec![0; PIECE], 0, 0);
        while at < size {
            let piece = &mut buffer[..PIECE.min((size - at) as usize)];
            file.read_exact_at(piece, at).map_err(unreadable)?;
            for page in piece.chunks(4096) {
                let zero = page.try_into().is_ok_and(is_zero);
                let word = at | same | if zero { ZERO } else { RAW };
                self.put(&word.to_be_bytes())?;
                if same == 0 {
                    self.put(&named(name))?;
                }
                self.put(if zero { &[0] } else { page })?;
                (same, at) = (SAME_BLOCK, at + page.len() as u64);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.to.flush().map_err(|error| cannot(&self.path, &error))?;
        Ok(self.bytes)
    }
}

impl Sink for Squash {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        if blocks.page_bytes() != 4096 {
            return Err(Error::usage(format!(
                "pages of {} bytes; only 4096 can be squashed",
                blocks.page_bytes()
            )));
        }
        match event {
            Event::Header { version } => {
                self.config.extend(b"QEVM");
                self.config.extend(version.to_be_bytes());
            }
            Event::Machine { name } => {
                self.config.push(7);
                self.config.extend((name.len() as u32).to_be_bytes());
                self.config.extend(name.as_bytes());
            }
            Event::Setting(setting) => self.setting(setting),
            Event::Command(Command::SwitchoverStart) => {
                self.begin()?;
                self.put(&[8, 0, 11, 0, 0])?;
            }
            Event::SectionBegins(section) => self.section_begins(section)?,
            Event::Block(block) => self.memory.push((*block).clone()),
            Event::Data(bytes) if self.section.is_some() => self.put(bytes)?,
            Event::SectionEnds { section, .. } => self.section_ends(section, at.bytes > 0)?,
            Event::SectionsEnd => {
                self.memory()?;
                self.put(&[0])?;
            }
            Event::Description(piece) => self.description.extend_from_slice(piece),
            Event::DescriptionEnds => {
                let text = std::mem::take(&mut self.description);
                self.put(&[&[6][..], &(text.len() as u32).to_be_bytes()].concat())?;
                self.put(&text)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}

fn named(name: &str) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes()].concat()
}

fn subsection(name: &str) -> Vec<u8> {
    [&[5][..], &named(name), &1u32.to_be_bytes()].concat()
}

fn head(section: &Section) -> Vec<u8> {
    let kind = section.kind as u8 + 1;
    let numbers = [section.instance.to_be_bytes(), section.version.to_be_bytes()].concat();
    [&[kind][..], &section.id.to_be_bytes(), &named(&section.name), &numbers].concat()
}

fn ending(id: u32) -> Vec<u8> {
    [&[0x7e][..], &id.to_be_bytes()].concat()
}
