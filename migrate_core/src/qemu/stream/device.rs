//! Sections whose insides are not looked into: where they end.
//!
//! A device's section carries no length. Without the VM description at hand, its end is looked for: a footer with the
//! section's own number, followed by what can begin another element. That is no proof, as a guest may have put such
//! bytes into a device; where the VM description follows, its sizes are compared with what was found.

use std::collections::HashMap;

use super::{piece, Parser, State, FOOTER, MOST_DESCRIPTION};
use crate::qemu::cursor::{Cursor, Read, Stop};
use crate::qemu::event::{Event, Section, SectionKind, Sink};

/// Bytes of a footer.
const FOOTER_BYTES: usize = 5;
/// Highest number that a command is believed to have, and longest payload.
const MOST_COMMAND: u16 = 63;
const MOST_PAYLOAD: u16 = 4096;
/// Highest version that a section found without the help of footers is believed to have.
const MOST_VERSION: u32 = 1 << 16;

/// Lengths in bytes of device sections, by name and instance.
#[derive(Debug, Clone, Default)]
pub struct Lengths(HashMap<String, HashMap<u32, u64>>);

impl Lengths {
    /// Adds one.
    pub fn add(&mut self, name: &str, instance: u32, bytes: u64) {
        self.0.entry(name.to_owned()).or_default().insert(instance, bytes);
    }

    /// The length of a section, if it is known.
    pub fn get(&self, name: &str, instance: u32) -> Option<u64> {
        self.0.get(name)?.get(&instance).copied()
    }
}

/// How a section's end is found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scan {
    /// So many bytes are left.
    Known(u64),
    /// By what follows; the section's number.
    Search(u32),
}

/// What a look for the end came to.
enum Found {
    /// The end is here.
    Here,
    /// It may be here: that takes so many bytes to tell.
    Perhaps(usize),
    /// It is not among what is there.
    Nowhere,
}

impl Parser {
    pub(super) fn scan_for(&self, section: &Section) -> Scan {
        let known = self.lengths.as_ref().filter(|_| section.kind == SectionKind::Full);
        let bytes = known.and_then(|lengths| lengths.get(&section.name, section.instance));
        bytes.map_or(Scan::Search(section.id), Scan::Known)
    }

    pub(super) fn device(&mut self, scan: Scan, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        match scan {
            Scan::Known(0) => {
                self.state = State::Footer;
                Ok(())
            }
            Scan::Known(left) => {
                let piece = piece(input, left)?;
                self.state = State::Device(Scan::Known(left - piece.len() as u64));
                self.tell(piece.len(), &Event::Data(piece), sink)
            }
            Scan::Search(id) => self.search(id, input, sink),
        }
    }

    fn search(&mut self, id: u32, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let (data, found) = match self.footers {
            Some(false) => self.find_element(id, input),
            _ => self.find_footer(id, input),
        };
        if data > 0 {
            self.tell(data, &Event::Data(&input[..data]), sink)?;
        }
        match found {
            Found::Here => {
                self.state = State::Footer;
                Ok(())
            }
            Found::Perhaps(count) if data == 0 => Err(Stop::More(count)),
            Found::Nowhere if data == 0 => Err(Stop::More(input.len() + 1)),
            _ => Ok(()),
        }
    }

    /// Bytes that surely belong to the section, and whether its footer follows.
    fn find_footer(&self, id: u32, input: &[u8]) -> (usize, Found) {
        let mut at = 0;
        while let Some(next) = input[at..].iter().position(|byte| *byte == FOOTER) {
            at += next;
            match self.is_end(id, input, at) {
                Found::Nowhere => at += 1,
                found => return (at, found),
            }
        }
        (input.len(), Found::Nowhere)
    }

    /// Whether `input`, from `at` on, begins with this section's footer.
    fn is_end(&self, id: u32, input: &[u8], at: usize) -> Found {
        let position = self.offset + (at + FOOTER_BYTES) as u64;
        let input = &input[at..];
        let mut footer = [FOOTER, 0, 0, 0, 0];
        footer[1..].copy_from_slice(&id.to_be_bytes());
        let there = input.len().min(FOOTER_BYTES);
        if input[..there] != footer[..there] {
            return Found::Nowhere;
        }
        if there < FOOTER_BYTES {
            return if self.ended { Found::Nowhere } else { Found::Perhaps(FOOTER_BYTES) };
        }
        let after = &input[FOOTER_BYTES..];
        if self.package_end == Some(position) || self.ended && after.is_empty() {
            return Found::Here;
        }
        self.judge(self.can_begin(after, None), FOOTER_BYTES)
    }

    /// The same for streams without footers: the next section's head, or the end of all.
    fn find_element(&self, id: u32, input: &[u8]) -> (usize, Found) {
        for at in 0..input.len() {
            if !matches!(input[at], 0 | 4) {
                continue;
            }
            match self.judge(self.can_begin(&input[at..], Some(id)), 0) {
                Found::Nowhere => {}
                found => return (at, found),
            }
        }
        (input.len(), Found::Nowhere)
    }

    fn judge(&self, can: Read<bool>, before: usize) -> Found {
        match can {
            Ok(true) => Found::Here,
            Err(Stop::More(count)) if !self.ended => Found::Perhaps(before + count),
            // At the end of all input a broken element is taken for what it seems to be.
            Err(Stop::More(_)) if before > 0 => Found::Here,
            _ => Found::Nowhere,
        }
    }

    /// Whether `bytes` can be the beginning of an element. Without footers it must be a later section's, `after`.
    fn can_begin(&self, bytes: &[u8], after: Option<u32>) -> Read<bool> {
        let mut cursor = Cursor::new(bytes, 0);
        let kind = cursor.byte()?;
        Ok(match kind {
            0 => match cursor.byte() {
                Err(Stop::More(_)) if self.ended => true,
                other => other? == 6 && is_description(&mut cursor)?,
            },
            1 | 4 => is_head(&mut cursor, after)?,
            2 | 3 => self.sections.contains_key(&cursor.be32()?),
            8 => (1..=MOST_COMMAND).contains(&cursor.be16()?) && cursor.be16()? <= MOST_PAYLOAD,
            _ => false,
        })
    }
}

fn is_description(cursor: &mut Cursor<'_>) -> Read<bool> {
    Ok((2..=MOST_DESCRIPTION).contains(&cursor.be32()?.into()) && cursor.byte()? == b'{')
}

fn is_head(cursor: &mut Cursor<'_>, after: Option<u32>) -> Read<bool> {
    let id = cursor.be32()?;
    let length = usize::from(cursor.byte()?);
    let later = after.is_none_or(|after| id > after && id - after < MOST_VERSION);
    if !later || length == 0 {
        return Ok(false);
    }
    // As far as the name is there it must be one, so that not every such byte is waited for.
    for _ in 0..length {
        if !matches!(cursor.byte()?, b' '..=b'~') {
            return Ok(false);
        }
    }
    cursor.be32()?;
    Ok(cursor.be32()? <= MOST_VERSION)
}
