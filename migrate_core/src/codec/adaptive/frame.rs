//! An adaptive batch as bytes: which pages belong together, and who encoded them.
//!
//! u8 number of groups; with more than one, for each page the u8 group it is in; then for each group in turn the u8
//! candidate, the u32 length (big-endian) and the batch by that candidate. Candidate 0 are pages as they are.

use super::kind::KINDS;
use crate::error::{Error, Result};

/// A group of a batch.
pub struct Group<'a> {
    /// Who encoded it; checked by nobody here.
    pub candidate: usize,
    /// Its batch.
    pub data: &'a [u8],
    /// Where that is in the whole.
    pub at: usize,
}

/// Begins a batch of `groups` groups.
pub fn put_groups(out: &mut Vec<u8>, groups: usize, of_page: &[usize]) {
    out.push(groups as u8);
    if groups > 1 {
        out.extend(of_page.iter().map(|group| *group as u8));
    }
}

/// Appends a group by `candidate`, whose batch `write` appends.
pub fn put_group<T>(out: &mut Vec<u8>, candidate: usize, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    out.push(candidate as u8);
    let at = out.len();
    out.extend([0; 4]);
    let written = write(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    written
}

/// The groups of a batch of `pages` pages, and the group of each page.
pub fn parse(data: &[u8], pages: usize) -> Result<(Vec<Group<'_>>, Vec<usize>)> {
    let wrong = |at: usize, what: String| Error::stream(at as u64, what);
    let (count, rest) = data.split_first().ok_or_else(|| wrong(0, "an empty batch".into()))?;
    let count = usize::from(*count);
    if count > KINDS {
        return Err(wrong(0, format!("{count} groups; the most is {KINDS}")));
    }
    let listed = if count > 1 { pages } else { 0 };
    let list = rest.get(..listed).ok_or_else(|| wrong(1, format!("{pages} pages in {count} groups")))?;
    let of_page = match count {
        0 | 1 => vec![0; pages],
        _ => list.iter().map(|group| usize::from(*group)).collect(),
    };
    if let Some(page) = of_page.iter().position(|group| *group >= count) {
        return Err(wrong(1 + page.min(listed), format!("group {} of {count}", of_page[page])));
    }
    let (mut groups, mut at) = (Vec::with_capacity(count), 1 + listed);
    for _ in 0..count {
        let head = data.get(at..at + 5).ok_or_else(|| wrong(at, "a group ends early".into()))?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let data = data[at + 5..].get(..length);
        let data = data.ok_or_else(|| wrong(at + 1, format!("{length} bytes announced for a group")))?;
        groups.push(Group { candidate: usize::from(head[0]), data, at: at + 5 });
        at += 5 + length;
    }
    match data.len() - at {
        0 => Ok((groups, of_page)),
        rest => Err(wrong(at, format!("{rest} bytes after the last group"))),
    }
}
