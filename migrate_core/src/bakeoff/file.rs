//! Memory images: files that hold a memory page by page, several of them one after the other.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::take::Memory;
use crate::codec::Page;
use crate::error::{Error, Result};
use crate::guest::PAGE;

/// The first bytes of QEMU's migration streams (`QEVM`), which are no images.
const STREAM: [u8; 4] = *b"QEVM";

/// Images of the same memory at successive times.
#[derive(Debug)]
pub struct Images {
    files: Vec<(PathBuf, File, u64)>,
    at: usize,
}

impl Images {
    /// Of these files, first to last. Bytes beyond whole pages are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] if one cannot be opened, is no plain file, holds no page, or is a migration stream.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let files: Vec<_> = paths.iter().map(|path| open(path.as_ref())).collect::<Result<_>>()?;
        match files.is_empty() {
            true => Err(Error::usage("no memory image was given")),
            false => Ok(Self { files, at: 0 }),
        }
    }
}

fn open(path: &Path) -> Result<(PathBuf, File, u64)> {
    let wrong = |what: String| Error::usage(format!("{}: {what}", path.display()));
    // A pipe would block at being opened.
    let facts = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if !facts.is_file() {
        return Err(wrong("no memory image: it is not a plain file".into()));
    }
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    let pages = facts.len() / PAGE as u64;
    if pages == 0 {
        return Err(wrong(format!("no memory image: its {} bytes are less than a page", facts.len())));
    }
    let mut head = [0; STREAM.len()];
    if file.read_exact_at(&mut head, 0).is_ok() && head == STREAM {
        return Err(wrong("a migration stream, not a memory image: say --stream".into()));
    }
    Ok((path.to_owned(), file, pages))
}

impl Memory for Images {
    fn stretches(&mut self) -> Result<Vec<Range<u64>>> {
        let most = self.files.iter().map(|(_, _, pages)| *pages).max();
        Ok(std::iter::once(0..most.unwrap_or(0)).collect())
    }

    fn read(&mut self, pages: &[u64], each: &mut dyn FnMut(u64, &Page)) -> Result<()> {
        let (path, file, known) = &self.files[self.at];
        let mut bytes = [0; PAGE];
        for page in pages.iter().filter(|page| *page < known) {
            file.read_exact_at(&mut bytes, page * PAGE as u64)
                .map_err(|e| Error::usage(format!("{}: page {page}: {e}", path.display())))?;
            each(*page, &bytes);
        }
        Ok(())
    }

    fn advance(&mut self, _cancel: &AtomicBool) -> Result<bool> {
        self.at += 1;
        Ok(self.at < self.files.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bakeoff::Taking;

    fn written(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("bakeoff-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn files_are_versions_of_one_memory() {
        let (first, second) = (written("a", &[1; 3 * PAGE + 7]), written("b", &[2; 2 * PAGE]));
        let mut images = Images::open(&[&first, &second]).unwrap();
        let taking = Taking { bytes: 1 << 20, rounds: 2 };
        let set = taking.from(&mut images, &AtomicBool::new(false)).unwrap();
        let seen: Vec<_> = set.versions().iter().map(|v| (v.round, v.page)).collect();
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
        assert!(set.contents()[4] == [2; PAGE]);
        [first, second].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let refuse = |path: &Path| Images::open(&[path]).unwrap_err().to_string();
        let (short, stream) =
            (written("short", &[1; 100]), written("stream", &[b"QEVM".as_slice(), &[0; 5000]].concat()));
        assert!(refuse(&short).contains("its 100 bytes are less than a page"));
        assert!(refuse(&stream).contains("--stream"));
        assert!(refuse(Path::new("/nonexistent")).contains("/nonexistent: No such file"));
        assert!(refuse(Path::new("/dev/zero")).contains("not a plain file"));
        assert!(Images::open::<&Path>(&[]).unwrap_err().to_string().contains("no memory image"));
        [short, stream].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
