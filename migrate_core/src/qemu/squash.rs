//! A smaller stream with the final content only, which a QEMU of the same machine type loads.
//!
//! Each page comes once, memory before devices, and what was said to a destination (pings, post-copy, packages) is left
//! out. State of devices, configuration and VM description are the bytes of the capture. Memory is put together in
//! temporary files first, so that no page has to be kept in memory.

mod memory;
mod output;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{Block, Blocks};
use super::capture::Capture;
use super::event::{At, Command, Event, Section, SectionKind, Setting, Sink};
use super::image;
use super::receiver::Control;
use crate::error::{Error, Result};
use memory::Image;
use output::Output;

const LIST: u64 = 0x04;
const END: u64 = 0x10;
/// The capability that both sides of a mapped-ram file need.
const MAPPED_RAM: &str = "mapped-ram";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A stream, which any QEMU of the machine type loads from a file, a pipe or a socket.
    Stream,
    /// A mapped-ram file, with holes for zero pages, which QEMU 9.0 and later loads in parallel.
    MappedRam,
}

/// Writes the squashed form of the capture in `paths` to `output`, with `scratch`, a folder of the caller's, for the
/// memory meanwhile; `control` can call it off. The bytes written; those of holes count.
///
/// # Errors
/// [`Error::Stream`]: the capture is not whole. [`Error::Usage`]: a file cannot be written, or the capture holds memory
/// that is shared and not in it.
pub fn squash<P: AsRef<Path>>(
    paths: &[P],
    output: &Path,
    scratch: &Path,
    form: Form,
    control: &Arc<Control>,
) -> Result<u64> {
    let mut capture = Capture::open_under(paths, control)?;
    refuse_itself(&capture, output)?;
    let files = image::extract(&mut capture, scratch)?;
    let images = files.into_iter().map(|(name, path, _)| (name, path)).collect();
    let mut sink = Squash::new(Output::create(output)?, images, form);
    let mut again = Capture::open_under(paths, control)?;
    again.run(&mut sink)?;
    sink.to.finish()
}

fn refuse_itself(capture: &Capture, output: &Path) -> Result<()> {
    let Ok(there) = output.canonicalize() else { return Ok(()) };
    match capture.files().iter().any(|file| file.path.canonicalize().is_ok_and(|path| path == there)) {
        true => Err(Error::usage(format!(
            "{} is a file of the capture itself: write to another one",
            output.display()
        ))),
        false => Ok(()),
    }
}

struct Squash {
    to: Output,
    form: Form,
    images: Vec<(String, PathBuf)>,
    /// The number of `ram`, once its list is complete.
    started: Option<u32>,
    /// The section that is being copied.
    section: Option<Section>,
    blocks: Vec<Block>,
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
    fn new(to: Output, images: Vec<(String, PathBuf)>, form: Form) -> Self {
        Self {
            to,
            form,
            images,
            started: None,
            section: None,
            blocks: Vec::new(),
            config: Vec::new(),
            capabilities: Vec::new(),
            shared: false,
            written: false,
            sections: false,
            footers: true,
            description: Vec::new(),
        }
    }

    /// Header and configuration, before whatever comes first after them.
    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.sections, true) {
            return Ok(());
        }
        let mut config = std::mem::take(&mut self.config);
        self.capabilities.retain(|name| name != MAPPED_RAM);
        if self.form == Form::MappedRam {
            self.capabilities.push(MAPPED_RAM.to_owned());
        }
        if !self.capabilities.is_empty() {
            config.extend(subsection("configuration/capabilities"));
            config.extend((self.capabilities.len() as u32).to_be_bytes());
            self.capabilities.iter().for_each(|name| config.extend(named(name)));
        }
        self.to.put(&config)
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
        self.to.put(&head)
    }

    fn section_ends(&mut self, section: &Section, footer: bool) -> Result<()> {
        self.footers = footer;
        if section.name == "ram" && section.kind == SectionKind::Start {
            return self.list(section);
        }
        match self.section.take() {
            Some(section) if footer => self.to.put(&ending(section.id)),
            _ => Ok(()),
        }
    }

    /// The first section of `ram`: the blocks.
    fn list(&mut self, section: &Section) -> Result<()> {
        self.started = Some(section.id);
        let total: u64 = self.blocks.iter().map(|block| block.bytes).sum();
        self.to.put(&[head(section), (total | LIST).to_be_bytes().to_vec()].concat())?;
        for block in std::mem::take(&mut self.blocks) {
            self.to.put(&[named(&block.name), block.bytes.to_be_bytes().to_vec()].concat())?;
            block.address.iter().try_for_each(|address| self.to.put(&address.to_be_bytes()))?;
            if self.form == Form::MappedRam {
                self.refuse_shared()?;
                self.image(&block.name)?.map(&mut self.to)?;
            }
        }
        self.to.put(&END.to_be_bytes())?;
        self.footer(section.id)
    }

    fn image(&self, name: &str) -> Result<Image> {
        let found = self.images.iter().find(|(block, _)| block == name);
        let missing = || Error::usage(format!("RAM block `{name}` was not extracted"));
        Image::open(&found.ok_or_else(missing)?.1)
    }

    fn refuse_shared(&self) -> Result<()> {
        match self.shared {
            true => Err(Error::usage(
                "memory that is shared (x-ignore-shared) is not in the capture: nothing to squash",
            )),
            false => Ok(()),
        }
    }

    fn footer(&mut self, id: u32) -> Result<()> {
        match self.footers {
            true => self.to.put(&ending(id)),
            false => Ok(()),
        }
    }

    /// The last section of `ram`, with all pages where they are not mapped.
    fn memory(&mut self) -> Result<()> {
        let Some(id) = self.started else { return Ok(()) };
        if std::mem::replace(&mut self.written, true) {
            return Ok(());
        }
        self.refuse_shared()?;
        self.to.put(&[&[3][..], &id.to_be_bytes()].concat())?;
        if self.form == Form::Stream {
            for (name, path) in std::mem::take(&mut self.images) {
                Image::open(&path)?.send(&name, &mut self.to)?;
            }
        }
        self.to.put(&END.to_be_bytes())?;
        self.footer(id)
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
                self.to.put(&[8, 0, 11, 0, 0])?;
            }
            Event::SectionBegins(section) => self.section_begins(section)?,
            Event::Block(block) => self.blocks.push((*block).clone()),
            Event::Data(bytes) if self.section.is_some() => self.to.put(bytes)?,
            Event::SectionEnds { section, .. } => self.section_ends(section, at.bytes > 0)?,
            Event::SectionsEnd => {
                self.memory()?;
                self.to.put(&[0])?;
            }
            Event::Description(piece) => self.description.extend_from_slice(piece),
            Event::DescriptionEnds => {
                let text = std::mem::take(&mut self.description);
                self.to.put(&[&[6][..], &(text.len() as u32).to_be_bytes()].concat())?;
                self.to.put(&text)?;
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
