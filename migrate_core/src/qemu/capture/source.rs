//! One file of a capture, read through a buffer.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::role::{Role, LOOK};
use super::wrapping::{self, Wrapping};
use super::FileInfo;
use crate::error::{Error, Result};
use crate::qemu::description::Description;
use crate::qemu::stream::{Lengths, MOST_DESCRIPTION};

/// Bytes read at a time: enough to make a system call cheap, few enough to stay in the cache.
const BUFFER: usize = 256 << 10;
/// How much of a file's end is looked at for the VM description, first and at most.
const TAIL: (u64, u64) = (1 << 20, 16 << 20);

/// Bytes between the end of the sections and the description's text: marks and its length; bytes of a footer.
const HEAD: u64 = 6;
const FOOTER: u64 = 5;
/// Most layers that are taken off: libvirt's header, and compression in it and around it.
const MOST_LAYERS: usize = 3;

/// Where bytes come from.
pub(super) enum Input {
    /// A file of which any part can be read.
    File(File),
    /// Anything else.
    Stream(Box<dyn Read + Send>),
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(bytes),
            Self::Stream(stream) => stream.read(bytes),
        }
    }
}

/// A file, and what of it has been read and not used.
pub(super) struct Source {
    pub(super) info: FileInfo,
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Position of `start`.
    offset: u64,
    need: usize,
}

/// Opens a file, or the files of a folder.
pub(super) fn open(path: &Path, sources: &mut Vec<Source>) -> Result<()> {
    if !path.is_dir() {
        sources.push(Source::open(path)?);
        return Ok(());
    }
    let cannot = |e: std::io::Error| Error::usage(format!("cannot list {}: {e}", path.display()));
    let entries =
        std::fs::read_dir(path).map_err(cannot)?.collect::<std::io::Result<Vec<_>>>().map_err(cannot)?;
    let mut files: Vec<_> =
        entries.into_iter().map(|entry| entry.path()).filter(|file| file.is_file()).collect();
    files.sort();
    // What else lies in the folder is none of ours.
    sources.extend(files.iter().filter_map(|file| Source::open(file).ok()));
    Ok(())
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let cannot = |e: std::io::Error| Error::usage(format!("cannot read {}: {e}", path.display()));
        let file = match path.to_str() {
            Some("-") => None,
            _ => Some(File::open(path).map_err(cannot)?),
        };
        let regular = match &file {
            Some(file) => Some(file.metadata().map_err(cannot)?).filter(std::fs::Metadata::is_file),
            None => None,
        };
        let input = match file {
            Some(file) if regular.is_some() => Input::File(file),
            Some(pipe) => Input::Stream(Box::new(pipe)),
            None => Input::Stream(Box::new(std::io::stdin())),
        };
        let info = FileInfo {
            path: path.to_owned(),
            role: Role::Main,
            wrapping: Wrapping::None,
            bytes: regular.map(|metadata| metadata.len()),
        };
        let mut source = Self { info, input, buffer: vec![0; BUFFER], start: 0, end: 0, offset: 0, need: 1 };
        source.unwrap().map_err(|error| in_file(path, error))?;
        source.look().map_err(|error| in_file(path, error))?;
        Ok(source)
    }

    /// Takes off what is around the stream.
    fn unwrap(&mut self) -> Result<()> {
        for _ in 0..MOST_LAYERS {
            let at = self.offset;
            let Some(layer) = wrapping::find(self.ahead(wrapping::LOOK)?, at)? else { break };
            self.info.wrapping = layer.wrapping(self.info.wrapping);
            self.pass(layer.head())?;
            if layer.packs() {
                let there = self.bytes().to_vec();
                let rest = std::mem::replace(&mut self.input, Input::Stream(Box::new(std::io::empty())));
                let packed = Box::new(std::io::Cursor::new(there).chain(rest));
                self.input = Input::Stream(layer.unpack(packed)?);
                (self.start, self.end, self.offset) = (0, 0, 0);
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let offset = self.offset;
        let ahead = self.ahead(LOOK)?;
        let Some(role) = Role::of(ahead) else {
            let first = ahead[..ahead.len().min(8)].escape_ascii().to_string();
            let text =
                format!("`{first}` begins no channel of a QEMU migration; a stream begins with `QEVM`");
            return Err(Error::stream(offset, text));
        };
        self.info.role = role;
        Ok(())
    }

    /// Position of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What has been read and not used.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Uses the first bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
        self.need = 1;
    }

    /// So many bytes have to be there before it is worth going on.
    pub(super) fn need(&mut self, count: usize) {
        self.need = count;
    }

    /// Reads until what is needed is there; `false` where the file ends before.
    pub(super) fn fill(&mut self) -> Result<bool> {
        let need = self.need;
        Ok(self.ahead(need)?.len() >= need)
    }

    /// The next bytes, which stay: at least `count` of them unless the file ends.
    fn ahead(&mut self, count: usize) -> Result<&[u8]> {
        if self.start + count > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if count > self.buffer.len() {
                self.buffer.resize(count.next_power_of_two(), 0);
            }
        }
        while self.end - self.start < count {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(&error)),
            }
        }
        Ok(self.bytes())
    }

    /// Damaged packed data are bad input; anything else is the system's refusal.
    fn unreadable(&self, error: &std::io::Error) -> Error {
        let at = self.offset + (self.end - self.start) as u64;
        match error.kind() {
            ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::UnexpectedEof
            | ErrorKind::Other => {
                Error::stream(at, format!("the packed stream cannot be unpacked further: {error}"))
            }
            _ => Error::usage(format!("cannot read {} at byte {at}: {error}", self.info.path.display())),
        }
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            self.need = 1;
            if !self.fill()? {
                return Err(Error::stream(self.offset, "the file ends inside its own header"));
            }
            let here = left.min(self.bytes().len() as u64);
            self.consume(here as usize);
            left -= here;
        }
        Ok(())
    }

    /// Passes over up to `count` bytes without reading what need not be read; how many.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64> {
        let here = count.min(self.bytes().len() as u64);
        self.consume(here as usize);
        let size = self.info.bytes.unwrap_or_default();
        let rest =
            if self.bytes().is_empty() { (count - here).min(size.saturating_sub(self.offset)) } else { 0 };
        let Input::File(file) = &mut self.input else { return Ok(here) };
        if rest > 0 {
            let to = SeekFrom::Start(self.offset + rest);
            file.seek(to)
                .map_err(|e| Error::usage(format!("cannot seek in {}: {e}", self.info.path.display())))?;
            self.offset += rest;
            return Ok(here + rest);
        }
        Ok(here)
    }

    /// The VM description at the end of the file, if that can be looked at and there is one, with the lengths of
    /// sections that were found to be right.
    pub(super) fn description(&self) -> Option<(Description, Lengths)> {
        let (Input::File(file), Some(size)) = (&self.input, self.info.bytes) else { return None };
        [TAIL.0, TAIL.1].into_iter().find_map(|length| {
            let length = length.min(size);
            let mut tail = vec![0; length as usize];
            file.read_exact_at(&mut tail, size - length).ok()?;
            let text = description_in(&tail)?;
            let description = Description::read(text, size - text.len() as u64).ok()?;
            let lengths = confirmed(file, &description, size - text.len() as u64 - HEAD);
            Some((description, lengths))
        })
    }
}

/// The description that ends where `tail` does: `00 06 be32-length {...}`.
fn description_in(tail: &[u8]) -> Option<&[u8]> {
    (6..tail.len()).filter(|at| tail[*at] == b'{' && tail[at - 6..at - 4] == [0, 6]).find_map(|at| {
        let length = tail[at - 4..at].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        (length == (tail.len() - at) as u64 && length <= MOST_DESCRIPTION).then(|| &tail[at..])
    })
}

/// The lengths that the description gives and the bytes bear out: sections that end the stream, each before the one
/// after it. Some releases of QEMU describe arrays with empty elements wrongly; such a section's end is searched for.
fn confirmed(file: &File, description: &Description, end: u64) -> Lengths {
    let mut lengths = Lengths::default();
    let mut end = end;
    for device in description.devices.iter().rev() {
        let Some(bytes) = device.section_bytes() else { break };
        let head = 14 + device.name.len() as u64;
        let starts = [FOOTER, 0]
            .into_iter()
            .filter_map(|footer| Some((footer, end.checked_sub(footer + bytes + head)?)));
        let Some((_, start)) = starts.into_iter().find(|(footer, start)| {
            let (mut first, mut last) = (vec![0; head as usize], vec![0; *footer as usize]);
            let read = file
                .read_exact_at(&mut first, *start)
                .and_then(|()| file.read_exact_at(&mut last, end - footer));
            let begins = first[0] == 4
                && first[6..6 + device.name.len()] == *device.name.as_bytes()
                && first[6 + device.name.len()..][..4] == device.instance.to_be_bytes();
            read.is_ok() && begins && (last.is_empty() || last[0] == 0x7e && last[1..] == first[1..5])
        }) else {
            break;
        };
        lengths.add(&device.name, device.instance, bytes);
        end = start;
    }
    lengths
}

fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Stream { offset, reason } => {
            Error::stream(offset, format!("{reason} (in {})", path.display()))
        }
        other => other,
    }
}
