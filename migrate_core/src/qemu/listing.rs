//! A line for each record of a capture, for people or as JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::blocks::Blocks;
use super::event::{At, Content, Event, Sink, Uuid};
use crate::error::Result;

/// Gathers lines until they are taken.
#[derive(Debug, Default)]
pub struct Listing {
    json: bool,
    /// Pages have lines of their own; otherwise those that follow each other in a block are one.
    each_page: bool,
    lines: String,
    run: Option<Run>,
}

/// Pages that follow each other in a channel and a block, of one kind.
#[derive(Debug, Clone, Serialize)]
struct Run {
    channel: usize,
    offset: u64,
    bytes: u64,
    event: &'static str,
    block: String,
    kind: &'static str,
    first: u64,
    pages: u64,
    #[serde(skip)]
    next: u64,
}

impl Listing {
    /// As JSON or for people; with a line for each page, or one for neighbours of one kind.
    pub fn new(json: bool, each_page: bool) -> Self {
        Self { json, each_page, ..Self::default() }
    }

    /// The lines so far.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    /// The last lines.
    pub fn finish(&mut self) -> String {
        self.flush();
        self.take()
    }

    fn flush(&mut self) {
        let Some(run) = self.run.take() else { return };
        if self.json {
            self.lines.push_str(&serde_json::to_string(&run).unwrap_or_default());
            self.lines.push('\n');
        } else {
            let last = run.first + run.pages - 1;
            let text = match run.pages {
                1 => format!("page {} of {}, {}", run.first, run.block, run.kind),
                _ => format!("pages {} to {last} of {}, {}", run.first, run.block, run.kind),
            };
            self.line(run.channel, run.offset, run.bytes, &text);
        }
    }

    fn line(&mut self, channel: usize, offset: u64, bytes: u64, text: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.lines, "{channel:>2} {offset:>12} {bytes:>8}  {text}");
    }

    fn page(&mut self, at: At, page: &super::event::Page<'_>, blocks: &Blocks) {
        let number = page.offset / blocks.page_bytes();
        let kind = match page.content {
            Content::Fill(byte) if byte != 0 => "fill",
            _ => page.kind.name(),
        };
        let name = blocks.get(page.block).map_or("", |block| block.name.as_str());
        if let Some(run) = self.run.as_mut().filter(|_| !self.each_page) {
            if run.next == number && run.channel == at.channel && run.kind == kind && run.block == name {
                (run.next, run.pages, run.bytes) = (number + 1, run.pages + 1, run.bytes + at.bytes);
                return;
            }
        }
        self.flush();
        self.run = Some(Run {
            channel: at.channel,
            offset: at.offset,
            bytes: at.bytes,
            event: "pages",
            block: name.to_owned(),
            kind,
            first: number,
            pages: 1,
            next: number + 1,
        });
    }

    fn other(&mut self, at: At, value: &mut serde_json::Value) {
        self.flush();
        if self.json {
            if let Some(object) = value.as_object_mut() {
                object.insert("channel".into(), json!(at.channel));
                object.insert("offset".into(), json!(at.offset));
                object.insert("bytes".into(), json!(at.bytes));
            }
            let _ = writeln!(self.lines, "{value}");
            return;
        }
        let fields = value.as_object().into_iter().flatten().filter(|(key, _)| *key != "event");
        let fields: Vec<_> = fields.map(|(key, value)| format!("{key}={value}")).collect();
        let name = value.get("event").and_then(|name| name.as_str()).unwrap_or_default();
        let text = format!("{name} {}", fields.join(" "));
        self.line(at.channel, at.offset, at.bytes, text.trim_end());
    }
}

/// The event's name and fields, pages apart.
fn value(event: &Event<'_>) -> serde_json::Value {
    let named = |name: &str, value: serde_json::Value| {
        let mut value = if value.is_object() { value } else { json!({}) };
        value["event"] = json!(name);
        value
    };
    match event {
        Event::Header { version } => json!({"event": "header", "version": version}),
        Event::Machine { name } => json!({"event": "machine", "machine": name}),
        Event::Setting(setting) => named("setting", json!(setting)),
        Event::Command(command) => named("command", json!(command)),
        Event::PackageEnds => json!({"event": "package-ends"}),
        Event::SectionBegins(section) => named("section-begins", json!(section)),
        Event::Block(block) => {
            let mut block = json!(block);
            block["block_bytes"] = block["bytes"].take();
            named("block", block)
        }
        Event::Flush => json!({"event": "flush"}),
        Event::PagesEnd => json!({"event": "pages-end"}),
        Event::Data(_) => json!({"event": "data"}),
        Event::SectionEnds { section, began } => {
            let mut value = json!(section);
            value["began"] = json!(began);
            named("section-ends", value)
        }
        Event::SectionsEnd => json!({"event": "sections-end"}),
        Event::Description(_) => json!({"event": "description"}),
        Event::DescriptionEnds => json!({"event": "description-ends"}),
        Event::Trailing(_) => json!({"event": "trailing"}),
        Event::Channel { number, uuid } => {
            json!({"event": "channel", "number": number, "uuid": Uuid(*uuid).to_string()})
        }
        Event::Packet(packet) => named("packet", json!(packet)),
        Event::Sync => json!({"event": "sync"}),
        Event::Page(_) => json!({"event": "page"}),
    }
}

impl Sink for Listing {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        match event {
            Event::Page(page) => self.page(at, page, blocks),
            other => self.other(at, &mut value(other)),
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}
