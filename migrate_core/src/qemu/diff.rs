//! How two captures differ: pages of memory, and fields of devices.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::capture::Capture;
use super::description::Json;
use super::devices::{self, DeviceState};
use super::image;
use super::receiver::Control;
use crate::error::{Error, Result};

/// Bytes compared at a time.
const PIECE: usize = 1 << 20;
/// Most runs of pages that are listed for a block; all are counted.
const MOST_RUNS: usize = 4096;
/// Most fields that are listed.
const MOST_FIELDS: usize = 4096;

/// A RAM block in both captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDifference {
    /// Its name.
    pub block: String,
    /// Its length in bytes in the first and the second; `None` where it is missing.
    pub bytes: (Option<u64>, Option<u64>),
    /// Pages of 4096 bytes that differ; what only one has differs where it is not zero.
    pub pages: u64,
    /// Their runs: first page and how many.
    pub runs: Vec<(u64, u64)>,
}

/// A field of a device that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDifference {
    /// Device, instance, and the field's names from the outside in, such as `cpu/0/env.regs/3`.
    pub field: String,
    /// What the first and the second have; `None` where it is missing.
    pub values: (Option<Json>, Option<Json>),
}

/// All that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// RAM blocks that are not the same.
    pub blocks: Vec<BlockDifference>,
    /// Fields that are not the same.
    pub fields: Vec<FieldDifference>,
}

/// Compares two captures, with `scratch`, a folder of the caller's, for their memory meanwhile; `control` can call it
/// off.
///
/// # Errors
/// [`Error::Stream`]: one of them is not whole. [`Error::Usage`]: a file cannot be read or written.
pub fn diff<P: AsRef<Path>>(
    first: &[P],
    second: &[P],
    scratch: &Path,
    control: &Arc<Control>,
) -> Result<Difference> {
    let a = images(first, &scratch.join("first"), control)?;
    let b = images(second, &scratch.join("second"), control)?;
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let mut blocks = Vec::new();
    for name in names {
        let found = block(name, a.get(name), b.get(name))?;
        if found.pages > 0 || found.bytes.0 != found.bytes.1 {
            blocks.push(found);
        }
    }
    let states = |paths| devices::read(&mut Capture::open_under(paths, control)?);
    let (a, b) = (states(first)?, states(second)?);
    Ok(Difference { blocks, fields: fields(&a, &b) })
}

fn images<P: AsRef<Path>>(
    paths: &[P],
    folder: &Path,
    control: &Arc<Control>,
) -> Result<BTreeMap<String, (PathBuf, u64)>> {
    let files = image::extract(&mut Capture::open_under(paths, control)?, folder)?;
    Ok(files.into_iter().map(|(name, path, bytes)| (name, (path, bytes))).collect())
}

/// A RAM block's memory; zeros past its end.
struct Memory(Option<File>, u64);

impl Memory {
    fn open(image: Option<&(PathBuf, u64)>) -> Result<Self> {
        let Some((path, bytes)) = image else { return Ok(Self(None, 0)) };
        let file = File::open(path)
            .map_err(|error| Error::usage(format!("cannot read {}: {error}", path.display())))?;
        Ok(Self(Some(file), *bytes))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        let there = self.1.saturating_sub(at).min(bytes.len() as u64) as usize;
        match &self.0 {
            Some(file) => file
                .read_exact_at(&mut bytes[..there], at)
                .map_err(|error| Error::usage(format!("cannot read a RAM block at {at}: {error}"))),
            None => Ok(()),
        }
    }
}

fn block(name: &str, a: Option<&(PathBuf, u64)>, b: Option<&(PathBuf, u64)>) -> Result<BlockDifference> {
    let bytes = (a.map(|image| image.1), b.map(|image| image.1));
    let (a, b) = (Memory::open(a)?, Memory::open(b)?);
    let mut found = BlockDifference { block: name.to_owned(), bytes, pages: 0, runs: Vec::new() };
    let (mut left, mut right, mut at) = (vec![0; PIECE], vec![0; PIECE], 0);
    while at < a.1.max(b.1) {
        a.read(at, &mut left)?;
        b.read(at, &mut right)?;
        if left != right {
            let pages = left.chunks(4096).zip(right.chunks(4096)).enumerate();
            pages.filter(|(_, (a, b))| a != b).for_each(|(page, _)| found.add(at / 4096 + page as u64));
        }
        at += PIECE as u64;
    }
    Ok(found)
}

impl BlockDifference {
    fn add(&mut self, page: u64) {
        self.pages += 1;
        let full = self.runs.len() >= MOST_RUNS;
        match self.runs.last_mut() {
            Some((first, count)) if *first + *count == page => *count += 1,
            _ if full => {}
            _ => self.runs.push((page, 1)),
        }
    }
}

fn fields(a: &[DeviceState], b: &[DeviceState]) -> Vec<FieldDifference> {
    let by_name = |devices: &[DeviceState]| {
        let pairs = devices
            .iter()
            .map(|device| (format!("{}/{}", device.name, device.instance), device.state.clone()));
        Json::Object(pairs.collect())
    };
    let mut found = Vec::new();
    compare(String::new(), Some(&by_name(a)), Some(&by_name(b)), &mut found);
    found
}

/// Goes down where both have the same kind of thing, and notes what differs.
fn compare(path: String, a: Option<&Json>, b: Option<&Json>, found: &mut Vec<FieldDifference>) {
    if a == b || found.len() >= MOST_FIELDS {
        return;
    }
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    match (a, b) {
        (Some(Json::Object(left)), Some(Json::Object(right))) => {
            for (name, value) in left {
                let other = right.iter().find(|(key, _)| key == name).map(|(_, value)| value);
                compare(inside(name), Some(value), other, found);
            }
            for (name, value) in right.iter().filter(|(name, _)| !left.iter().any(|(key, _)| key == name)) {
                compare(inside(name), None, Some(value), found);
            }
        }
        (Some(Json::List(left)), Some(Json::List(right))) => {
            for index in 0..left.len().max(right.len()) {
                compare(inside(&index.to_string()), left.get(index), right.get(index), found);
            }
        }
        _ => found.push(FieldDifference { field: path, values: (a.cloned(), b.cloned()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_differ_have_their_path() {
        let json = |text: &str| Json::read(text.as_bytes(), 0).unwrap();
        let mut found = Vec::new();
        let (a, b) = (
            json(r#"{"d": {"x": [1, 2], "y": 1, "z": 0}}"#),
            json(r#"{"d": {"x": [1, 3, 4], "y": 1, "w": 0}}"#),
        );
        compare(String::new(), Some(&a), Some(&b), &mut found);
        let paths: Vec<_> = found.iter().map(|each| each.field.as_str()).collect();
        assert_eq!(paths, ["d/x/1", "d/x/2", "d/z", "d/w"]);
        assert_eq!(found[1].values, (None, Some(Json::Number(4))));
    }

    #[test]
    fn pages_that_differ_are_runs() {
        let folder = std::env::temp_dir().join(format!("switchover-diff-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (a, b) = (folder.join("a"), folder.join("b"));
        let mut bytes = vec![0u8; 8 * 4096];
        std::fs::write(&a, &bytes).unwrap();
        for page in [1, 2, 7] {
            bytes[page * 4096 + 5] = 1;
        }
        bytes.extend([0; 4096]);
        std::fs::write(&b, &bytes).unwrap();
        let found = block("m", Some(&(a, 8 * 4096)), Some(&(b, 9 * 4096))).unwrap();
        assert_eq!((found.pages, found.runs), (3, vec![(1, 2), (7, 1)]));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
