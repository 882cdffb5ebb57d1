//! What a file of a capture is, by how it begins.

use std::fmt;

use serde::Serialize;

use crate::qemu::{multifd, stream};

/// Bytes that are enough to tell.
pub(super) const LOOK: usize = 300;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The main channel, or a whole stream.
    Main,
    /// A multifd channel.
    Multifd,
    /// The connection over which a broken post-copy went on.
    Recovery,
    /// The channel of a post-copy for pages that were asked for.
    Urgent,
    /// What the destination said.
    ReturnPath,
}

impl Role {
    /// By the first bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if stream::is_main(bytes) {
            Some(Self::Main)
        } else if bytes.starts_with(&multifd::MAGIC) {
            Some(Self::Multifd)
        } else if is_recovery(bytes) {
            Some(Self::Recovery)
        } else if is_return_path(bytes) {
            Some(Self::ReturnPath)
        } else if is_urgent(bytes) {
            Some(Self::Urgent)
        } else {
            None
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Main => "a main channel",
            Self::Multifd => "a multifd channel",
            Self::Recovery => "a recovery of post-copy",
            Self::Urgent => "an urgent channel of post-copy",
            Self::ReturnPath => "a return path",
        })
    }
}

/// It asks for the bitmap of what has come, or resumes.
fn is_recovery(bytes: &[u8]) -> bool {
    matches!(bytes, [8, 0, 9 | 10, ..])
}

/// A message of a known kind and length.
fn is_return_path(bytes: &[u8]) -> bool {
    match bytes {
        [0, 1 | 2 | 6, 0, 4, ..] | [0, 4, 0, 12, ..] | [0, 7, 0, 0, ..] => true,
        [0, 3, high, low, ..] => (14..=268).contains(&u16::from_be_bytes([*high, *low])),
        [0, 5, high, low, name, ..] => u16::from_be_bytes([*high, *low]) == 1 + u16::from(*name),
        _ => false,
    }
}

/// A page's record that names its block; or only the end of pages, as 7.x writes where none was asked for.
fn is_urgent(bytes: &[u8]) -> bool {
    if bytes == 0x10u64.to_be_bytes() {
        return true;
    }
    let [_, _, _, _, _, _, high, low, length, name @ ..] = bytes else { return false };
    let flags = u16::from_be_bytes([*high, *low]) & 0x3ff;
    let name = name.get(..usize::from(*length)).unwrap_or_default();
    matches!(flags, 0x02 | 0x08) && !name.is_empty() && name.iter().all(|byte| matches!(byte, b' '..=b'~'))
}
