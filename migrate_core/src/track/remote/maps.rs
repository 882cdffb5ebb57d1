//! The mappings of a process, out of `/proc/PID/maps` (proc_pid_maps(5)).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Its addresses.
    pub addresses: Range<u64>,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether writes to it are the process's own, unseen by others.
    pub private: bool,
    /// The file's path, or what the kernel calls it, such as `[heap]`; empty for anonymous memory.
    pub name: String,
}

impl Mapping {
    /// A line of the file.
    fn parse(line: &str) -> Option<Self> {
        // Addresses, permissions, offset, device, inode; then the name, which may have blanks.
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let rights = words.next()?.as_bytes();
        let address = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            addresses: address(from)?..address(to)?,
            writable: rights.get(1)? == &b'w',
            executable: rights.get(2)? == &b'x',
            private: rights.get(3)? == &b'p',
            name: words.nth(3).unwrap_or("").trim_start().to_owned(),
        })
    }

    /// What traces call it, and whether there may be several so called.
    pub(super) fn label(&self) -> (&str, bool) {
        match self.name.as_str() {
            "[heap]" => ("heap", false),
            "[stack]" => ("stack", false),
            "" => ("anon", true),
            name => {
                let name = name.strip_prefix("[anon:").map_or(name, |name| name.trim().trim_end_matches(']'));
                let name = name.trim_end_matches(" (deleted)");
                (name.rsplit('/').next().unwrap_or(name), true)
            }
        }
    }
}

/// The file, open. It is about the memory that the process had when it was opened: when the process ends or
/// executes another program, it reads as empty.
#[derive(Debug)]
pub(super) struct Maps {
    file: File,
    text: Vec<u8>,
}

impl Maps {
    /// Of process `pid`.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/maps"))?, text: Vec::new() })
    }

    /// All mappings in ascending order; none if the memory is gone.
    pub(super) fn read(&mut self) -> io::Result<Vec<Mapping>> {
        self.text.clear();
        self.file.rewind()?;
        match self.file.read_to_end(&mut self.text) {
            Ok(_) => {}
            // The process ended while it was read.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => self.text.clear(),
            Err(e) => return Err(e),
        }
        Ok(String::from_utf8_lossy(&self.text).lines().filter_map(Mapping::parse).collect())
    }
}

/// Sorted ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range that begins at or after the end of all others.
    pub(super) fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    /// Whether any of `range` is in them.
    pub(super) fn meets(&self, range: &Range<u64>) -> bool {
        self.split(range.clone()).iter().any(|(_, known)| *known)
    }

    /// `range` cut into the parts that are in them (true) and that are not.
    pub(super) fn split(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let (mut parts, mut from) = (Vec::new(), range.start);
        let first = self.0.partition_point(|known| known.end <= range.start);
        for known in self.0[first..].iter().take_while(|known| known.start < range.end) {
            let (start, end) = (known.start.max(range.start), known.end.min(range.end));
            if from < start {
                parts.push((from..start, false));
            }
            parts.push((start..end, true));
            from = end;
        }
        if from < range.end {
            parts.push((from..range.end, false));
        }
        parts
    }

    /// Their length in all.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds_are_read() {
        let label = |line: &str| {
            let mapping = Mapping::parse(line).unwrap();
            (mapping.label().0.to_owned(), mapping.writable, mapping.private)
        };
        let heap = "55d0c0a00000-55d0c0b21000 rw-p 00000000 00:00 0                          [heap]";
        assert_eq!(label(heap), ("heap".into(), true, true));
        assert_eq!(Mapping::parse(heap).unwrap().addresses, 0x55d0c0a00000..0x55d0c0b21000);
        assert_eq!(label("7f00-8f00 rw-p 00000000 00:00 0 "), ("anon".into(), true, true));
        assert_eq!(label("7f00-8f00 rw-p 00000000 00:00 0"), ("anon".into(), true, true));
        assert_eq!(label("7f00-8f00 rw-p 0 00:00 0   [anon: glibc: malloc]").0, "glibc: malloc");
        let library = "7f00-8f00 r--p 001d1000 fe:00 2627 /usr/lib/a b/libc.so.6 (deleted)";
        assert_eq!(label(library), ("libc.so.6".into(), false, true));
        assert_eq!(
            label("7f00-8f00 rw-s 00000000 00:01 10 /memfd:ram (deleted)"),
            ("memfd:ram".into(), true, false)
        );
    }

    #[test]
    fn what_is_no_mapping_is_left_out() {
        for line in ["", "x", "10-20", "zz-20 rw-p", "10-20 rw"] {
            assert_eq!(Mapping::parse(line), None, "{line}");
        }
    }

    #[test]
    fn this_process_has_a_stack_and_a_heap_of_another_program_is_gone() {
        let mut maps = Maps::open(std::process::id() as i32).unwrap();
        let names: Vec<_> = maps.read().unwrap().into_iter().map(|mapping| mapping.name).collect();
        assert!(names.iter().any(|name| name == "[stack]"), "{names:?}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut maps = Maps::open(child.id() as i32).unwrap();
        child.wait().unwrap();
        assert_eq!(maps.read().unwrap(), []);
    }

    #[test]
    fn ranges_are_cut_at_the_edges_of_what_is_known() {
        let mut known = Ranges::default();
        [10..20, 20..30, 40..50].into_iter().for_each(|range| known.push(range));
        assert_eq!(known.bytes(), 30);
        assert_eq!(known.split(5..45), [(5..10, false), (10..30, true), (30..40, false), (40..45, true)]);
        assert_eq!(known.split(12..18), [(12..18, true)]);
        assert_eq!(known.split(30..40), [(30..40, false)]);
        assert!(known.meets(&(29..31)) && !known.meets(&(30..40)) && !known.meets(&(50..60)));
    }
}
