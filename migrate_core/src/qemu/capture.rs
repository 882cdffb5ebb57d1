//! A migration as it was kept in files: which file is which channel, and in what order they count.
//!
//! Multifd channels are replayed in epochs: the main channel up to a point of synchronisation, then every other channel
//! up to its own. Within an epoch no page travels twice, so the order of channels does not matter there. The channels
//! of a post-copy come after the main one: by then the guest runs at the destination, and no page travels twice either.

mod role;
mod source;
mod wrapping;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use role::Role;
pub use wrapping::Wrapping;

use super::blocks::Blocks;
use super::description::Description;
use super::event::Sink;
use super::multifd::Channel;
use super::receiver::Control;
use super::stream::{Advance, Parser, Then};
use super::times::Times;
use crate::error::{Error, Result};
use source::Source;

/// Most files of one migration: the main channel, 255 of multifd, and those of post-copy.
const MOST_FILES: usize = 1024;

/// A file of a capture.
#[derive(Debug, Clone, Serialize)]
pub struct FileInfo {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub role: Role,
    /// What is around the stream.
    pub wrapping: Wrapping,
    /// Length in bytes; `None` for a pipe.
    pub bytes: Option<u64>,
}

/// How far the replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Main,
    /// The channel of that place in the list is brought to its next point of synchronisation, or to its end.
    Channel {
        index: usize,
        last: bool,
    },
    /// The channel of a post-copy of that place in the list.
    Later(usize),
    Done,
}

/// The files of one migration, being replayed.
pub struct Capture {
    files: Vec<FileInfo>,
    sources: Vec<Source>,
    main: usize,
    parser: Parser,
    channels: Vec<(usize, Channel)>,
    later: Vec<usize>,
    stage: Stage,
    description: Option<Description>,
    times: Times,
    control: Arc<Control>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Capture({:?}, {:?})", self.files, self.stage)
    }
}

impl Capture {
    /// Opens the files of one migration, in any order; a folder stands for the files in it that belong to one, and
    /// `-` for the standard input.
    ///
    /// # Errors
    /// [`Error::Usage`]: no file, one that cannot be read, or not exactly one main channel. [`Error::Stream`]: a file
    /// that is no part of a migration, or is packed in a way that cannot be undone here.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        Self::open_under(paths, &Arc::default())
    }

    /// The same, with other threads allowed to look how far it is, and to call it off.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_under<P: AsRef<Path>>(paths: &[P], control: &Arc<Control>) -> Result<Self> {
        let mut sources = Vec::new();
        for path in paths {
            source::open(path.as_ref(), &mut sources)?;
        }
        sources.retain(|source| source.info.role != Role::ReturnPath);
        if sources.len() > MOST_FILES {
            return Err(Error::usage(format!(
                "{} files; one migration has at most {MOST_FILES}",
                sources.len()
            )));
        }
        let main = only_main(&sources)?;
        let start = sources[main].offset();
        let description = sources[main].description();
        let mut parser = Parser::new(main, start);
        let description = description.map(|(description, lengths)| {
            parser.expect_lengths(lengths);
            description
        });
        let of = |role: fn(Role) -> bool| {
            let chosen = sources.iter().enumerate().filter(move |(_, source)| role(source.info.role));
            chosen.map(|(index, _)| index).collect::<Vec<_>>()
        };
        let channels = of(|role| role == Role::Multifd);
        let later = of(|role| matches!(role, Role::Recovery | Role::Urgent));
        if !channels.is_empty() {
            parser.stop_for_others();
        }
        // The page size comes from the main channel, which is read first.
        let channels =
            channels.into_iter().map(|index| (index, Channel::new(index, parser.page_bytes()))).collect();
        let files: Vec<_> = sources.iter().map(|source| source.info.clone()).collect();
        let times = Times::read(files.iter().map(|file| file.path.as_path()))?;
        let (stage, control) = (Stage::Main, Arc::clone(control));
        Ok(Self { files, sources, main, parser, channels, later, stage, description, times, control })
    }

    /// The files, numbered as in [`super::event::At::channel`]; return paths are left out.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// The RAM blocks that have been listed so far.
    pub fn blocks(&self) -> &Blocks {
        self.parser.blocks()
    }

    /// Size of a page in bytes.
    pub fn page_bytes(&self) -> u64 {
        self.parser.page_bytes()
    }

    /// The VM description, where it was found at the end of the file before the replay.
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// When what came, where a receiver noted it.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Replays all that is left.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn run(&mut self, sink: &mut dyn Sink) -> Result<()> {
        while self.step(sink)? {}
        Ok(())
    }

    /// Replays a piece; whether there is more.
    ///
    /// # Errors
    /// [`Error::Stream`] with the position and, where there are several files, the file's name; what `sink` gave;
    /// [`Error::Usage`] where it was called off.
    pub fn step(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        if self.control.is_cancelled() {
            return Err(Error::usage("called off"));
        }
        let file = match self.stage {
            Stage::Main => self.main,
            Stage::Channel { index, .. } => self.channels.get(index).map_or(self.main, |(file, _)| *file),
            Stage::Later(index) => self.later.get(index).copied().unwrap_or(self.main),
            Stage::Done => return Ok(false),
        };
        let done = match self.stage {
            Stage::Main => self.step_main(sink),
            Stage::Channel { index, last } => self.step_channel(index, last, sink),
            Stage::Later(index) => self.step_later(index, sink),
            Stage::Done => Ok(()),
        };
        let several = self.files.len() > 1;
        done.map_err(|error| if several { self.named(file, error) } else { error })?;
        Ok(self.stage != Stage::Done)
    }

    fn named(&self, file: usize, error: Error) -> Error {
        match error {
            Error::Stream { offset, reason } => {
                Error::stream(offset, format!("{reason} (in {})", self.files[file].path.display()))
            }
            other => other,
        }
    }

    fn step_main(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let source = &mut self.sources[self.main];
        let there = source.fill()?;
        let Advance { used, then } = self.parser.advance(source.bytes(), sink)?;
        source.consume(used);
        self.control.add(used as u64);
        match then {
            Then::Skip(count) => {
                let skipped = source.skip(count)?;
                self.parser.skip(skipped);
            }
            Then::Others => {
                for (_, channel) in &mut self.channels {
                    channel.set_page_bytes(self.parser.page_bytes());
                }
                self.stage = Stage::Channel { index: 0, last: false };
                return Ok(());
            }
            Then::More(count) => source.need(count),
        }
        if !there {
            self.end_of_main(self.main, sink)?;
            self.stage = Stage::Channel { index: 0, last: true };
        }
        Ok(())
    }

    /// A main channel that a recovery follows was cut off; otherwise it must be complete.
    fn end_of_main(&mut self, file: usize, sink: &mut dyn Sink) -> Result<()> {
        let recovered =
            self.later.iter().any(|later| self.files[*later].role == Role::Recovery && *later != file);
        match self.parser.finish(self.sources[file].bytes(), sink) {
            Err(Error::Stream { .. }) if recovered => Ok(()),
            other => other,
        }
    }

    fn step_channel(&mut self, index: usize, last: bool, sink: &mut dyn Sink) -> Result<()> {
        let Some((file, channel)) = self.channels.get_mut(index) else {
            self.stage = if last { self.after(0) } else { Stage::Main };
            return Ok(());
        };
        let source = &mut self.sources[*file];
        let there = source.fill()?;
        let Advance { used, then } = channel.advance(source.bytes(), self.parser.blocks(), sink)?;
        source.consume(used);
        self.control.add(used as u64);
        let next = Stage::Channel { index: index + 1, last };
        match then {
            Then::More(count) => source.need(count),
            Then::Others if !last => self.stage = next,
            _ => {}
        }
        if !there && then != Then::Others {
            channel.finish(source.bytes().len())?;
            self.stage = next;
        }
        Ok(())
    }

    /// Goes on to the channels of a post-copy.
    fn after(&mut self, index: usize) -> Stage {
        let Some(file) = self.later.get(index).copied() else { return Stage::Done };
        match self.files[file].role {
            Role::Recovery => self.parser.reconnect(file),
            _ => self.parser.urgent(file),
        }
        Stage::Later(index)
    }

    fn step_later(&mut self, index: usize, sink: &mut dyn Sink) -> Result<()> {
        let file = self.later[index];
        let source = &mut self.sources[file];
        let there = source.fill()?;
        let Advance { used, then } = self.parser.advance(source.bytes(), sink)?;
        source.consume(used);
        self.control.add(used as u64);
        if let Then::More(count) = then {
            source.need(count);
        }
        if !there {
            self.end_of_later(file, sink)?;
            self.stage = self.after(index + 1);
        }
        Ok(())
    }

    /// Of several connections only the last has to be complete; an urgent one may break off where another follows.
    fn end_of_later(&mut self, file: usize, sink: &mut dyn Sink) -> Result<()> {
        let role = self.files[file].role;
        let again = self.later.iter().any(|later| *later > file && self.files[*later].role == Role::Recovery);
        let broken_off =
            again || role == Role::Urgent && self.later.iter().any(|f| self.files[*f].role == Role::Recovery);
        match self.parser.finish(self.sources[file].bytes(), sink) {
            Err(Error::Stream { .. }) if broken_off => Ok(()),
            other => other,
        }
    }
}

fn only_main(sources: &[Source]) -> Result<usize> {
    let mut mains = sources.iter().enumerate().filter(|(_, source)| source.info.role == Role::Main);
    match (mains.next(), mains.next()) {
        (Some((index, _)), None) => Ok(index),
        (Some((_, one)), Some((_, two))) => Err(Error::usage(format!(
            "{} and {} are main channels of two migrations; give the files of one",
            one.info.path.display(),
            two.info.path.display()
        ))),
        (None, _) => {
            let found: Vec<_> =
                sources.iter().map(|s| format!("{} is {}", s.info.path.display(), s.info.role)).collect();
            let found = if found.is_empty() { "no file of a migration".into() } else { found.join(", ") };
            Err(Error::usage(format!("the main channel, which begins with `QEVM`, is missing: {found}")))
        }
    }
}
