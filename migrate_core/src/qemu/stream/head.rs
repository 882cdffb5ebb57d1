//! How a stream begins: header and configuration.

use super::{Parser, State};
use crate::qemu::cursor::{wrong, Cursor, Read};
use crate::qemu::event::{Event, Setting, Sink};

/// `QEVM`.
pub const MAGIC: [u8; 4] = *b"QEVM";
const VERSION: u32 = 3;
const CONFIGURATION: u8 = 7;
/// How a part of any vmstate begins.
const SUBSECTION: u8 = 5;
/// Longest name of a machine type.
const MOST_NAME: u32 = 256;
/// Most capabilities that are listed.
const MOST_CAPABILITIES: u32 = 256;
const PREFIX: &[u8] = b"configuration/";

impl Parser {
    pub(super) fn header(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        let magic: [u8; 4] = cursor.array()?;
        if magic != MAGIC {
            let text = format!("`{}` is not how a QEMU stream begins, which is `QEVM`", magic.escape_ascii());
            return Err(wrong(self.offset, text));
        }
        let version = cursor.be32()?;
        if version != VERSION {
            let text =
                format!("a stream of version {version}; QEMU writes and reads version {VERSION} since 0.9");
            return Err(wrong(self.offset + 4, text));
        }
        self.state = State::Configuration;
        self.tell(cursor.used(), &Event::Header { version }, sink)
    }

    pub(super) fn configuration(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        if cursor.byte()? != CONFIGURATION {
            // Machine types up to 2.3 have neither a configuration nor footers.
            self.state = State::Element;
            return Ok(());
        }
        let length = cursor.be32()?;
        if length > MOST_NAME {
            let text = format!("a machine type of {length} bytes; at most {MOST_NAME} were expected");
            return Err(wrong(self.offset + 1, text));
        }
        let name = cursor.text(length as usize, "the machine type")?;
        self.state = State::Settings;
        self.tell(cursor.used(), &Event::Machine { name }, sink)
    }

    /// One subsection of the configuration. They have no end of their own: whatever else comes next ends them.
    pub(super) fn setting(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        if cursor.byte()? != SUBSECTION {
            self.state = State::Element;
            return Ok(());
        }
        let name = cursor.name("the name of a part of the configuration")?;
        cursor.be32()?;
        match name.as_bytes().strip_prefix(PREFIX) {
            Some(b"target-page-bits") => self.page_bits(cursor, sink),
            Some(b"capabilities") => self.capabilities(cursor, sink),
            Some(b"uuid") => {
                let uuid = cursor.array()?;
                self.tell(cursor.used(), &Event::Setting(Setting::Uuid { uuid }), sink)
            }
            _ => Err(wrong(
                self.offset,
                format!("`{name}` is no known part of the configuration; its length is unknown"),
            )),
        }
    }

    fn page_bits(&mut self, mut cursor: Cursor<'_>, sink: &mut dyn Sink) -> Read<()> {
        let bits = cursor.be32()?;
        // The flags of a page's record take the low ten bits.
        if !(10..=16).contains(&bits) {
            return Err(wrong(
                cursor.offset() - 4,
                format!("pages of 2^{bits} bytes; 2^10 to 2^16 were expected"),
            ));
        }
        self.ram.blocks.set_page_bytes(1 << bits);
        self.tell(cursor.used(), &Event::Setting(Setting::TargetPageBits { bits }), sink)
    }

    fn capabilities(&mut self, mut cursor: Cursor<'_>, sink: &mut dyn Sink) -> Read<()> {
        let count = cursor.be32()?;
        if count > MOST_CAPABILITIES {
            let text = format!("{count} capabilities; at most {MOST_CAPABILITIES} were expected");
            return Err(wrong(cursor.offset() - 4, text));
        }
        let names = (0..count).map(|_| cursor.name("a capability")).collect::<Read<Vec<_>>>()?;
        let used = cursor.used();
        for (index, name) in names.iter().enumerate() {
            self.ram.note_capability(name);
            let bytes = if index == 0 { used } else { 0 };
            self.tell(bytes, &Event::Setting(Setting::Capability { name }), sink)?;
        }
        if names.is_empty() {
            self.offset += used as u64;
        }
        Ok(())
    }
}

/// Whether `bytes` are how a main channel begins.
pub fn is_main(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}
