//! Follows the main channel of a migration as it flows: which elements pass, and how many pages of which kind.
//!
//! It looks at heads only and passes over contents, so that a receiver that measures costs next to nothing a page. It
//! is *not* the parser of captures: contents are neither kept nor checked.
//!
//! Two things have no length on the wire. A device's section ends at its footer (`0x7e` and its own number) where an
//! element follows; device state after the last of the memory is passed over up to the VM description, whose head
//! (`0x00 0x06`, a length, `{"configuration"` or `{"page_size"`) is the end of a stream.

use std::collections::HashMap;
use std::io::Read;

use serde::Serialize;

use super::intake::Intake;
use crate::error::{Error, Result};

/// The target's pages: those of x86, POWER, s390x, RISC-V, and of Arm's `virt` machines.
pub(super) const PAGE: u64 = 4096;
/// Most RAM blocks, and sections, that are remembered.
const MOST: usize = 1 << 16;

const MAGIC: [u8; 8] = *b"QEVM\0\0\0\x03";
const CONFIGURATION: u8 = 0x07;
const SUBSECTION: u8 = 0x05;
const COMMAND: u8 = 0x08;
const FOOTER: u8 = 0x7e;
/// What an element may begin with.
const ELEMENTS: [u8; 7] = [0, 1, 2, 3, 4, 6, COMMAND];
/// How the VM description begins, by version.
const DESCRIPTIONS: [&[u8]; 2] = [b"{\"configuration\"", b"{\"page_size\""];
/// Bytes that tell a VM description: the end of the sections, its own mark, its length, its first key.
const DESCRIPTION_HEAD: usize = 6 + 16;

const ADVISE: u16 = 3;
const PACKAGED: u16 = 7;

const ZERO: u64 = 0x02;
const BLOCKS: u64 = 0x04;
const RAW: u64 = 0x08;
const EOS: u64 = 0x10;
const SAME_BLOCK: u64 = 0x20;
const XBZRLE: u64 = 0x40;
const COMPRESSED: u64 = 0x100;
const FLUSH: u64 = 0x200;

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

/// Where in a series a section stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionKind {
    /// The first of several.
    Start,
    /// One of several.
    Part,
    /// The last of several: the guest is stopped.
    End,
    /// The only one.
    Full,
}

/// What is seen as it passes; with the position behind it, or of the first byte of what begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// The head, with the machine's type where the stream names one.
    Head(Option<String>),
    /// A command's number and payload.
    Command(u16, Vec<u8>),
    /// A section begins.
    Begins(SectionKind, String),
    /// A RAM block is listed.
    Block(BlockSize),
    /// So many pages have passed, in so many bytes; the walk over memory goes on.
    Pages(PageKinds, u64),
    /// The walk over memory begins anew: the next page is before the last one.
    Wrapped,
    /// All channels are at the same point: a mark of its own (`true`), or the end of a section's pages.
    Barrier(bool),
    /// The section that began last has passed.
    Ends,
    /// From here to the end there is device state.
    Tail,
    /// The stream is complete.
    Complete,
}

/// Follows one main channel to its end; `see` may end it early with an error.
pub(super) struct Watch<'a, R> {
    intake: Intake<R>,
    see: &'a mut dyn FnMut(Sight, u64) -> Result<()>,
    names: HashMap<u32, String>,
    blocks: Vec<String>,
    /// Block (its number) and address of the last page.
    last: Option<(usize, u64)>,
    /// `None` until the first section of memory has ended.
    footers: Option<bool>,
    memory_ended: bool,
    packaged: bool,
    advised: bool,
    ignores_shared: bool,
    walk: Walk,
}

/// Pages of one section since the walk began anew.
#[derive(Default)]
struct Walk {
    kinds: PageKinds,
    bytes: u64,
}

impl<'a, R: Read> Watch<'a, R> {
    /// Of the channel that `intake` reads.
    pub(super) fn new(intake: Intake<R>, see: &'a mut dyn FnMut(Sight, u64) -> Result<()>) -> Self {
        Self {
            intake,
            see,
            names: HashMap::new(),
            blocks: Vec::new(),
            last: None,
            footers: None,
            memory_ended: false,
            packaged: false,
            advised: false,
            ignores_shared: false,
            walk: Walk::default(),
        }
    }

    /// Follows the stream until it is complete.
    ///
    /// # Errors
    /// [`Error::Stream`] with the position of what cannot be in a stream, or of its early end; what `see` gave.
    pub(super) fn run(&mut self) -> Result<()> {
        self.head()?;
        while !self.element()? {}
        self.tell(Sight::Complete)
    }

    /// Reads on, to nobody's interest, until the source closes.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.intake.is_at_end()? {
            let here = self.intake.window(1)?.len() as u64;
            self.intake.skip(here)?;
        }
        Ok(())
    }

    fn tell(&mut self, sight: Sight) -> Result<()> {
        (self.see)(sight, self.intake.offset())
    }

    fn wrong<T>(&self, at: u64, reason: impl Into<String>) -> Result<T> {
        Err(Error::stream(at, reason))
    }

    fn head(&mut self) -> Result<()> {
        let magic: [u8; 8] = self.intake.array()?;
        if magic != MAGIC {
            return self
                .wrong(0, format!("{magic:02x?} is not how a QEMU stream begins, which is {MAGIC:02x?}"));
        }
        let configured = self.intake.peek(1)?.first() == Some(&CONFIGURATION);
        let machine = if configured { Some(self.configuration()?) } else { None };
        self.tell(Sight::Head(machine))
    }

    fn configuration(&mut self) -> Result<String> {
        self.intake.byte()?;
        let at = self.intake.offset();
        let length = self.intake.be32()?;
        if length > 256 {
            return self.wrong(at, format!("a machine type of {length} bytes; at most 256 were expected"));
        }
        let machine = String::from_utf8_lossy(&self.intake.bytes(length as usize)?).into_owned();
        while is_configuration(self.intake.peek(16)?) {
            self.subsection()?;
        }
        Ok(machine)
    }

    fn subsection(&mut self) -> Result<()> {
        let at = self.intake.offset();
        self.intake.byte()?;
        let name = self.intake.name()?;
        self.intake.be32()?;
        match name.as_str() {
            "configuration/target-page-bits" => match self.intake.be32()? {
                12 => Ok(()),
                bits => {
                    self.wrong(at, format!("target pages of 2^{bits} bytes; only 4096 bytes can be received"))
                }
            },
            "configuration/capabilities" => self.capabilities(),
            "configuration/uuid" => self.intake.skip(16),
            _ => self
                .wrong(at, format!("unknown part `{name}` of the configuration, whose length is not known")),
        }
    }

    fn capabilities(&mut self) -> Result<()> {
        for _ in 0..self.intake.be32()? {
            let at = self.intake.offset();
            let name = self.intake.name()?;
            self.ignores_shared |= name == "x-ignore-shared";
            if name == "mapped-ram" {
                return self
                    .wrong(at, "a mapped-ram file has its pages at fixed places and cannot be received");
            }
        }
        Ok(())
    }

    /// Reads one element; whether it was the last.
    fn element(&mut self) -> Result<bool> {
        let at = self.intake.offset();
        match self.intake.byte()? {
            0 if self.packaged => return Ok(true),
            0 => return self.description(at).map(|()| true),
            1 => self.section(SectionKind::Start)?,
            2 => self.section(SectionKind::Part)?,
            3 => self.section(SectionKind::End)?,
            4 => return self.full(),
            COMMAND => self.command()?,
            other => return self.wrong(at, format!("{other:#04x} where an element was expected")),
        }
        Ok(false)
    }

    fn command(&mut self) -> Result<()> {
        let number = self.intake.be16()?;
        let length = self.intake.be16()?;
        let payload = self.intake.bytes(length.into())?;
        self.advised |= number == ADVISE && length == 16;
        let package = match (number, <[u8; 4]>::try_from(&payload[..])) {
            (PACKAGED, Ok(size)) => u64::from(u32::from_be_bytes(size)),
            _ => 0,
        };
        self.packaged |= number == PACKAGED;
        self.tell(Sight::Command(number, payload))?;
        self.intake.skip(package)
    }

    /// A device's only section: before the memory it is passed over, after it everything is.
    fn full(&mut self) -> Result<bool> {
        if !self.memory_ended {
            return self.section(SectionKind::Full).map(|()| false);
        }
        let at = self.intake.offset() - 1;
        (self.see)(Sight::Tail, at)?;
        self.tail().map(|()| true)
    }

    fn section(&mut self, kind: SectionKind) -> Result<()> {
        // The byte that says what it is has been read.
        let at = self.intake.offset() - 1;
        let number = self.intake.be32()?;
        if matches!(kind, SectionKind::Start | SectionKind::Full) {
            let name = self.intake.name()?;
            self.intake.skip(8)?;
            if self.names.len() >= MOST {
                return self.wrong(at, format!("more than {MOST} sections"));
            }
            self.names.insert(number, name);
        }
        let Some(name) = self.names.get(&number).cloned() else {
            return self.wrong(at, format!("section {number} goes on without having begun"));
        };
        let memory = name == "ram";
        (self.see)(Sight::Begins(kind, name), at)?;
        if memory {
            self.memory(number)?;
        } else {
            self.device(number)?;
        }
        self.memory_ended |= memory && kind == SectionKind::End;
        self.tell(Sight::Ends)
    }

    /// Passes over a device's section of unknown length: up to its footer, where an element follows.
    fn device(&mut self, number: u32) -> Result<()> {
        let [a, b, c, d] = number.to_be_bytes();
        let footer = [FOOTER, a, b, c, d];
        loop {
            let window = self.intake.window(footer.len() + 1)?;
            if window.len() <= footer.len() {
                return self.intake.skip(u64::MAX);
            }
            let ends = |w: &[u8]| w.starts_with(&footer) && ELEMENTS.contains(&w[footer.len()]);
            let found = window.windows(footer.len() + 1).position(ends);
            let passed = found.map_or(window.len() - footer.len(), |at| at + footer.len());
            self.intake.skip(passed as u64)?;
            if found.is_some() {
                return Ok(());
            }
        }
    }

    /// Passes over device state up to the end of the VM description.
    fn tail(&mut self) -> Result<()> {
        loop {
            let window = self.intake.window(DESCRIPTION_HEAD)?;
            if window.len() < DESCRIPTION_HEAD {
                return self.without_description();
            }
            let found = window.windows(DESCRIPTION_HEAD).position(is_description);
            let passed = found.unwrap_or(window.len() - DESCRIPTION_HEAD + 1);
            self.intake.skip(passed as u64)?;
            if found.is_some() {
                let at = self.intake.offset();
                self.intake.byte()?;
                return self.description(at);
            }
        }
    }

    /// The source has closed: that is the end where machine types before 2.3 send no description.
    fn without_description(&mut self) -> Result<()> {
        let rest = self.intake.window(DESCRIPTION_HEAD)?;
        let (ended, left) = (rest.last() == Some(&0), rest.len() as u64);
        self.intake.skip(left)?;
        match ended && self.footers == Some(false) {
            true => Ok(()),
            false => self.wrong(self.intake.offset(), "the stream ends here, in the middle of device state"),
        }
    }

    /// After the end of all sections, which was at `at`.
    fn description(&mut self, at: u64) -> Result<()> {
        match self.intake.byte()? {
            6 => {
                let length = self.intake.be32()?;
                self.intake.skip(length.into())
            }
            other => self.wrong(at + 1, format!("{other:#04x} where the VM description was expected")),
        }
    }

    fn memory(&mut self, number: u32) -> Result<()> {
        while self.record()? {}
        self.pages_so_far()?;
        self.tell(Sight::Barrier(false))?;
        let [a, b, c, d] = number.to_be_bytes();
        let footer = [FOOTER, a, b, c, d];
        let there = match self.footers {
            Some(there) => there,
            None => self.intake.peek(footer.len())? == footer,
        };
        self.footers = Some(there);
        let at = self.intake.offset();
        if there && self.intake.array()? != footer {
            return self.wrong(at, format!("section {number} does not end in its footer"));
        }
        Ok(())
    }

    /// One record of memory; whether more follow.
    fn record(&mut self) -> Result<bool> {
        let at = self.intake.offset();
        let word = self.intake.be64()?;
        let (flags, address) = (word % PAGE, word - word % PAGE);
        match flags & !SAME_BLOCK {
            EOS => return Ok(false),
            FLUSH => {
                self.pages_so_far()?;
                self.tell(Sight::Barrier(true))?;
            }
            BLOCKS => self.list(address)?,
            kind @ (RAW | ZERO | XBZRLE | COMPRESSED) => {
                self.page(at, address, kind, flags & SAME_BLOCK != 0)?;
            }
            _ => return self.wrong(at, format!("flags {flags:#05x} in a record of memory")),
        }
        Ok(true)
    }

    fn page(&mut self, at: u64, address: u64, kind: u64, same_block: bool) -> Result<()> {
        let block = match (same_block, self.last) {
            (true, Some((block, _))) => block,
            (true, None) => return self.wrong(at, "a page of the block named last, and none was named"),
            (false, _) => self.block()?,
        };
        if self.last.is_some_and(|last| (block, address) <= last) {
            self.pages_so_far()?;
            self.tell(Sight::Wrapped)?;
        }
        self.last = Some((block, address));
        let count = match kind {
            RAW => &mut self.walk.kinds.raw,
            ZERO => &mut self.walk.kinds.zero,
            XBZRLE => &mut self.walk.kinds.xbzrle,
            _ => &mut self.walk.kinds.compressed,
        };
        *count += 1;
        let length = match kind {
            RAW => PAGE,
            ZERO => 1,
            XBZRLE => {
                self.intake.array::<3>().map(|[_, high, low]| u16::from_be_bytes([high, low]).into())?
            }
            _ => self.intake.be32()?.into(),
        };
        if length > 2 * PAGE {
            return self.wrong(at, format!("a page in {length} bytes; at most {} were expected", 2 * PAGE));
        }
        self.intake.skip(length)?;
        self.walk.bytes += self.intake.offset() - at;
        Ok(())
    }

    /// The number of the block that is named next.
    fn block(&mut self) -> Result<usize> {
        let at = self.intake.offset();
        let length = usize::from(self.intake.byte()?);
        let name = self.intake.peek(length)?;
        let found = self.blocks.iter().position(|block| block.as_bytes() == name);
        let text = String::from_utf8_lossy(name).into_owned();
        self.intake.skip(length as u64)?;
        found.map_or_else(
            || self.wrong(at, format!("a page of the RAM block `{text}`, which is not listed")),
            Ok,
        )
    }

    fn list(&mut self, total: u64) -> Result<()> {
        let mut left = total;
        while left > 0 {
            let at = self.intake.offset();
            let block = BlockSize { name: self.intake.name()?, bytes: self.intake.be64()? };
            if block.bytes > left || block.bytes == 0 || self.blocks.len() >= MOST {
                return self.wrong(
                    at,
                    format!("RAM block `{}` of {} bytes, with {left} left", block.name, block.bytes),
                );
            }
            left -= block.bytes;
            if self.advised && self.has_page_size(left == 0)? {
                self.intake.skip(8)?;
            }
            if self.ignores_shared {
                self.intake.skip(8)?;
            }
            self.blocks.push(block.name.clone());
            self.tell(Sight::Block(block))?;
        }
        Ok(())
    }

    /// Whether a block's page size comes next, as it does in post-copy where it is not the machine's own: a power of
    /// two from 64 KiB to 1 GiB, whose first byte is 0. A name has at least one byte; at the end of the list there is
    /// a record, whose flags are not 0.
    fn has_page_size(&mut self, at_the_end: bool) -> Result<bool> {
        let next = self.intake.peek(8)?;
        let Ok(bytes) = <[u8; 8]>::try_from(next) else { return Ok(false) };
        let size = u64::from_be_bytes(bytes);
        let plausible = size.is_power_of_two() && (1 << 16..=1 << 30).contains(&size);
        Ok(plausible && (!at_the_end || size % PAGE == 0))
    }

    fn pages_so_far(&mut self) -> Result<()> {
        let walk = std::mem::take(&mut self.walk);
        match walk.bytes {
            0 => Ok(()),
            bytes => self.tell(Sight::Pages(walk.kinds, bytes)),
        }
    }
}

fn is_configuration(bytes: &[u8]) -> bool {
    bytes.first() == Some(&SUBSECTION)
        && bytes.get(2..).is_some_and(|name| name.starts_with(b"configuration/"))
}

/// Whether `bytes` begin with the end of all sections and a VM description.
fn is_description(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 6]) && DESCRIPTIONS.iter().any(|text| bytes[6..].starts_with(text))
}
