//! A capture as an ELF core file of the guest's physical memory, for gdb, crash and Volatility.
//!
//! The stream says where shared memory lies and nothing else: the address of a RAM block is taken from the caller, or
//! known for `pc` and `q35` machines. Blocks without an address are left out. The processors' registers are in the
//! notes, as the VM description lets them be read (x86-64).
//!
//! Layout: System V ABI, "Program Header"; Linux, `struct elf_prstatus`; QEMU, `target/i386/arch_dump.c` for the note
//! named `QEMU`.

mod cpu;
mod layout;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::blocks::{Block, Blocks};
use super::capture::Capture;
use super::devices::Devices;
use super::event::{At, Event, Sink};
use super::image::{Image, Placed, Target};
use crate::error::{Error, Result};

/// Bytes before the memory: the file's head, and room for as many segments as fit.
const BEFORE: u64 = 64 << 10;
const HEAD: usize = 64;
const SEGMENT: usize = 56;
const MOST_SEGMENTS: usize = (BEFORE as usize - HEAD) / SEGMENT - 1;

/// A part of the guest's physical memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// The RAM block.
    pub block: String,
    /// Guest-physical address.
    pub address: u64,
    /// Position in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// The parts of memory.
    pub segments: Vec<Segment>,
    /// RAM blocks whose address is not known.
    pub left_out: Vec<String>,
    /// Processors whose registers are in it.
    pub processors: usize,
}

/// Where blocks go in the file.
#[derive(Debug)]
struct Core {
    file: Arc<File>,
    path: PathBuf,
    machine: String,
    addresses: Vec<(String, u64)>,
    end: u64,
    segments: Vec<Segment>,
    left_out: Vec<String>,
}

/// Writes the core file `path`; `addresses` are guest-physical ones of RAM blocks that are known otherwise.
///
/// # Errors
/// As [`Capture::run`]; [`Error::Usage`]: the file cannot be written, or no block has an address.
pub fn write(capture: &mut Capture, path: &Path, addresses: &[(String, u64)]) -> Result<Written> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(path);
    let core = Core {
        file: Arc::new(file.map_err(|error| cannot(path, &error))?),
        path: path.to_owned(),
        machine: String::new(),
        addresses: addresses.to_vec(),
        end: BEFORE,
        segments: Vec::new(),
        left_out: Vec::new(),
    };
    let mut both = Both { image: Image::new(core), devices: Devices::default() };
    capture.run(&mut both)?;
    let core = both.image.finish(capture.blocks())?;
    let registers = cpu::read(&both.devices.decoded()?);
    core.finish(&registers)
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot write {}: {error}", path.display()))
}

/// Memory and processors are found in one reading.
struct Both {
    image: Image<Core>,
    devices: Devices,
}

impl Sink for Both {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        if let Event::Machine { name } = event {
            (*name).clone_into(&mut self.image.target().machine);
        }
        self.image.event(at, event, blocks)?;
        self.devices.event(at, event, blocks)
    }
}

impl Target for Core {
    fn place(&mut self, block: &Block) -> Result<Option<Placed>> {
        let given = self.addresses.iter().find(|(name, _)| *name == block.name).map(|(_, address)| *address);
        let parts = match given.or(block.address) {
            Some(address) => vec![(address, block.bytes)],
            None => layout::parts(&self.machine, &block.name, block.bytes),
        };
        if parts.is_empty() || self.segments.len() + parts.len() > MOST_SEGMENTS {
            self.left_out.push(block.name.clone());
            return Ok(None);
        }
        let offset = self.end;
        let mut at = offset;
        for (address, bytes) in parts {
            self.segments.push(Segment { block: block.name.clone(), address, offset: at, bytes });
            at += bytes;
        }
        self.end += block.bytes;
        self.file.set_len(self.end).map_err(|error| cannot(&self.path, &error))?;
        Ok(Some(Placed { file: Arc::clone(&self.file), offset, path: self.path.clone() }))
    }
}

impl Core {
    fn finish(mut self, registers: &[cpu::Registers]) -> Result<Written> {
        if self.segments.is_empty() {
            let text =
                "where its RAM blocks lie in the guest's memory is not known: give BLOCK=ADDRESS for each of";
            return Err(Error::usage(format!("{}: {text} {}", self.machine, self.left_out.join(", "))));
        }
        self.segments.sort_by_key(|segment| segment.address);
        let notes: Vec<u8> =
            registers.iter().enumerate().flat_map(|(number, cpu)| cpu.notes(number)).collect();
        let mut head = header(self.segments.len() + 1);
        head.extend(program_header(4, self.end, 0, notes.len() as u64));
        for segment in &self.segments {
            head.extend(program_header(1, segment.offset, segment.address, segment.bytes));
        }
        let write =
            |bytes: &[u8], at| self.file.write_all_at(bytes, at).map_err(|error| cannot(&self.path, &error));
        write(&head, 0)?;
        write(&notes, self.end)?;
        Ok(Written { segments: self.segments, left_out: self.left_out, processors: registers.len() })
    }
}

/// The head of a little-endian x86-64 core file with so many program headers.
fn header(segments: usize) -> Vec<u8> {
    let mut head = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A core, for x86-64, of version 1; no entry point; program headers follow, no sections.
    for half in [4u16, 62] {
        head.extend(half.to_le_bytes());
    }
    head.extend(1u32.to_le_bytes());
    for word in [0u64, HEAD as u64, 0] {
        head.extend(word.to_le_bytes());
    }
    head.extend(0u32.to_le_bytes());
    for half in [HEAD as u16, SEGMENT as u16, segments as u16, 0, 0, 0] {
        head.extend(half.to_le_bytes());
    }
    head
}

/// gdb reads by virtual addresses: here they are the physical ones.
fn program_header(kind: u32, offset: u64, address: u64, bytes: u64) -> Vec<u8> {
    let flags = if kind == 1 { 7u32 } else { 0 };
    let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    let in_memory = if kind == 1 { bytes } else { 0 };
    for word in [offset, address, address, bytes, in_memory, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}
