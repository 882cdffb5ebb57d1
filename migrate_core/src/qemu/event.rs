//! What is found in a stream, one thing at a time.

use serde::{Serialize, Serializer};

use super::blocks::{Block, Blocks};
use crate::error::Result;

/// Where in a capture something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct At {
    /// The channel's number, in the order of the capture's files; the main channel is not always 0.
    pub channel: usize,
    /// Position of its first byte in the channel.
    pub offset: u64,
    /// Its bytes there.
    pub bytes: u64,
}

/// Takes in what is found.
pub trait Sink {
    /// One thing. `blocks` are those that have been listed so far. An error ends the reading and is passed on.
    ///
    /// # Errors
    /// What the sink cannot go on with.
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()>;

    /// Whether the bytes of pages are of use; otherwise what is compressed stays [`Content::Packed`].
    fn wants_content(&self) -> bool {
        true
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        (**self).event(at, event, blocks)
    }

    fn wants_content(&self) -> bool {
        (**self).wants_content()
    }
}

/// How a section stands among those of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionKind {
    /// The first of several.
    Start,
    /// One of those between.
    Part,
    /// The last of several.
    End,
    /// The only one.
    Full,
}

impl SectionKind {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        ["start", "part", "end", "full"][self as usize]
    }
}

/// A section's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// How it stands among those of its device.
    pub kind: SectionKind,
    /// The number that parts of one device share.
    pub id: u32,
    /// The device, such as `ram` or `0000:00:02.0/vga`.
    pub name: String,
    /// Tells devices of the same name apart.
    pub instance: u32,
    /// Of the device's format.
    pub version: u32,
}

/// A part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "setting", rename_all = "kebab-case")]
pub enum Setting<'a> {
    /// The page size is 2 to this power.
    TargetPageBits {
        /// The power, 10 to 16.
        bits: u32,
    },
    /// A capability that the destination must have set alike.
    Capability {
        /// Its QAPI name.
        name: &'a str,
    },
    /// The virtual machine's UUID.
    Uuid {
        /// Its 16 bytes.
        #[serde(serialize_with = "hexadecimal")]
        uuid: [u8; 16],
    },
}

/// What the source tells the destination to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command<'a> {
    /// Open the return path.
    OpenReturnPath,
    /// Answer with a pong.
    Ping {
        /// Comes back in the pong.
        value: u32,
    },
    /// Post-copy may follow.
    PostcopyAdvise {
        /// Sizes of the pages that back the blocks, or-ed, and the page size; none where only dirty bitmaps move so.
        sizes: Option<(u64, u64)>,
    },
    /// Get ready for pages that come while the guest runs.
    PostcopyListen,
    /// Start the guest.
    PostcopyRun,
    /// Forget these pages: they were written since they were sent.
    PostcopyDiscard {
        /// The RAM block.
        block: &'a str,
        /// Pairs of offset and length in bytes.
        ranges: Ranges<'a>,
    },
    /// The next bytes belong together and are here as a whole.
    Package {
        /// How many bytes.
        size: u32,
    },
    /// Go on as COLO after the first migration.
    EnableColo,
    /// A broken post-copy goes on.
    PostcopyResume,
    /// Say which pages of a block have come.
    ReceivedBitmap {
        /// The RAM block.
        block: &'a str,
    },
    /// The source's guest has stopped for good (QEMU 10.0 and later).
    SwitchoverStart,
    /// One that is not known; its length is.
    Unknown {
        /// Its number.
        number: u16,
    },
}

/// Pairs of offset and length in bytes, as they stand in a discard command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a>(pub(super) &'a [u8]);

impl Ranges<'_> {
    /// The pairs.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..])))
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Serialize for Ranges<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

/// How a page's content is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// As it is.
    Raw(&'a [u8]),
    /// One byte, everywhere; 0 but from very old sources.
    Fill(u8),
    /// XBZRLE data, against what the destination has.
    Xbzrle(&'a [u8]),
    /// A zlib stream of its own.
    Compressed(&'a [u8]),
    /// Compressed together with others, and left so: nobody [asked](Sink::wants_content).
    Packed,
}

/// Kinds of pages, as a capture is summed up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageKind {
    /// Sent as it is.
    Raw,
    /// All zeros (or one other byte), not sent.
    Zero,
    /// Sent as what changed.
    Xbzrle,
    /// Sent compressed.
    Compressed,
}

impl PageKind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Zero, Self::Xbzrle, Self::Compressed];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        ["raw", "zero", "xbzrle", "compressed"][self as usize]
    }
}

/// A page's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<'a> {
    /// The RAM block's number in the list.
    pub block: usize,
    /// Where in the block it is, in bytes: less than the block's length, a multiple of the page size.
    pub offset: u64,
    /// Whether it came compressed, whatever `content` is.
    pub kind: PageKind,
    /// What is in it.
    pub content: Content<'a>,
}

/// One thing in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The stream begins.
    Header {
        /// Of the format: 3.
        version: u32,
    },
    /// The machine type, in full.
    Machine {
        /// Such as `pc-i440fx-10.0`.
        name: &'a str,
    },
    /// A part of the configuration.
    Setting(Setting<'a>),
    /// A command.
    Command(Command<'a>),
    /// The package that a command announced is over.
    PackageEnds,
    /// A section begins.
    SectionBegins(&'a Section),
    /// A RAM block is listed.
    Block(&'a Block),
    /// A page.
    Page(Page<'a>),
    /// All channels are to be brought to the same point (machine types from 8.1 on).
    Flush,
    /// The end of the pages of this section.
    PagesEnd,
    /// A piece of a device's state, or of another section whose insides are not looked into.
    Data(&'a [u8]),
    /// The section ends.
    SectionEnds {
        /// Its head.
        section: &'a Section,
        /// Where it began.
        began: u64,
    },
    /// No sections follow.
    SectionsEnd,
    /// A piece of the VM description.
    Description(&'a [u8]),
    /// The VM description is complete.
    DescriptionEnds,
    /// Bytes after the end.
    Trailing(&'a [u8]),
    /// A multifd channel begins.
    Channel {
        /// Its number.
        number: u8,
        /// The virtual machine's UUID.
        uuid: [u8; 16],
    },
    /// A multifd packet; its pages follow.
    Packet(super::multifd::Packet),
    /// All that the channel has before this belongs before the point where the others are asked to be, too.
    Sync,
}

pub(super) fn hexadecimal<S: Serializer>(bytes: &[u8; 16], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&Uuid(*bytes))
}

/// A UUID in its usual writing.
pub struct Uuid(pub [u8; 16]);

impl std::fmt::Display for Uuid {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(to, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}
