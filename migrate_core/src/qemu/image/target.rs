//! Where blocks are written: a part of a file for each.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::qemu::blocks::Block;

/// Chooses places.
pub trait Target {
    /// The place of a block, which reads as zeros; `None` if its pages are not wanted.
    ///
    /// # Errors
    /// [`Error::Usage`]: it cannot be made.
    fn place(&mut self, block: &Block) -> Result<Option<Placed>>;
}

/// A part of a file.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The file, open for reading and writing.
    pub file: Arc<File>,
    /// Where the block begins in it.
    pub offset: u64,
    /// Its name, for errors.
    pub path: PathBuf,
}

impl Placed {
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.offset + offset).map_err(|error| self.cannot("write", &error))
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, self.offset + offset).map_err(|error| self.cannot("read", &error))
    }

    fn cannot(&self, what: &str, error: &std::io::Error) -> Error {
        Error::usage(format!("cannot {what} {}: {error}", self.path.display()))
    }
}

/// A file for each block, named after it.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    names: HashSet<String>,
    made: Vec<(String, PathBuf, u64)>,
}

impl Files {
    /// In `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Usage`]: it cannot be made.
    pub fn new(folder: &Path) -> Result<Self> {
        let cannot = |e| Error::usage(format!("cannot make the folder {}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(cannot)?;
        Ok(Self { folder: folder.to_owned(), names: HashSet::new(), made: Vec::new() })
    }

    /// Block names, their files, and lengths in bytes.
    pub fn made(self) -> Vec<(String, PathBuf, u64)> {
        self.made
    }
}

impl Target for Files {
    fn place(&mut self, block: &Block) -> Result<Option<Placed>> {
        let mut name = file_name(&block.name);
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        let path = self.folder.join(name);
        let cannot = |e: std::io::Error| Error::usage(format!("cannot write {}: {e}", path.display()));
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).map_err(cannot)?;
        file.set_len(block.bytes).map_err(cannot)?;
        self.made.push((block.name.clone(), path.clone(), block.bytes));
        Ok(Some(Placed { file: Arc::new(file), offset: 0, path }))
    }
}

/// A name that stays in its folder: what is not plain in a file's name becomes `_`.
fn file_name(block: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':') { c } else { '_' };
    let name: String = block.chars().map(plain).collect();
    let name = name.trim_start_matches('.').to_owned();
    if name.is_empty() {
        "_".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(file_name("pc.ram"), "pc.ram");
        assert_eq!(file_name("/rom@etc/acpi/tables"), "_rom@etc_acpi_tables");
        assert_eq!(file_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_name(".."), "_");
        assert_eq!(file_name(""), "_");
    }
}
