//! Device state: the sections of devices, decoded by the VM description.

use serde::Serialize;

use super::blocks::Blocks;
use super::capture::Capture;
use super::description::{decode, Description, Json};
use super::event::{At, Event, Section, SectionKind, Sink};
use super::stream::MOST_DESCRIPTION;
use crate::error::{Error, Result};

/// Most bytes of state that are kept, of all devices together.
const MOST_KEPT: usize = 256 << 20;

/// A device's state.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceState {
    /// The section's name.
    pub name: String,
    /// Its instance.
    pub instance: u32,
    /// The version of its format.
    pub version: u32,
    /// Position of its head in the stream.
    pub offset: u64,
    /// Bytes of its state.
    pub bytes: u64,
    /// The values; a hexadecimal text where no description fits.
    pub state: Json,
    /// Why the description does not fit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A section's bytes.
#[derive(Debug)]
struct Kept {
    section: Section,
    began: u64,
    data_at: u64,
    bytes: Vec<u8>,
}

/// Keeps the bytes of devices and the description.
#[derive(Debug, Default)]
pub struct Devices {
    kept: Vec<Kept>,
    total: usize,
    data_at: u64,
    bytes: Vec<u8>,
    description: Vec<u8>,
}

/// The state of all devices of a capture.
///
/// # Errors
/// As [`Capture::run`]; [`Error::Usage`] if there is more state than can be kept in memory.
pub fn read(capture: &mut Capture) -> Result<Vec<DeviceState>> {
    let mut devices = Devices::default();
    capture.run(&mut devices)?;
    devices.decoded()
}

impl Devices {
    /// The states that were seen, decoded.
    ///
    /// # Errors
    /// [`Error::Stream`]: the VM description is none.
    pub fn decoded(self) -> Result<Vec<DeviceState>> {
        let description = match self.description.is_empty() {
            true => None,
            false => Some(Description::read(&self.description, 0)?),
        };
        Ok(self.kept.into_iter().map(|kept| kept.decoded(description.as_ref())).collect())
    }

    fn data(&mut self, at: At, bytes: &[u8]) -> Result<()> {
        if self.bytes.is_empty() {
            self.data_at = at.offset;
        }
        self.total += bytes.len();
        if self.total > MOST_KEPT {
            return Err(Error::usage(format!(
                "more than {MOST_KEPT} bytes of device state: too much to be decoded"
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Kept {
    fn decoded(self, description: Option<&Description>) -> DeviceState {
        let device = description.and_then(|all| all.find(&self.section.name, self.section.instance));
        let decoded = device.map(|device| decode(device, &self.bytes, self.data_at));
        let (state, problem) = match decoded {
            Some(Ok(state)) => (state, None),
            Some(Err(error)) => (plain(&self.bytes), Some(error.to_string())),
            None => (plain(&self.bytes), None),
        };
        DeviceState {
            name: self.section.name,
            instance: self.section.instance,
            version: self.section.version,
            offset: self.began,
            bytes: self.bytes.len() as u64,
            state,
            problem,
        }
    }
}

fn plain(bytes: &[u8]) -> Json {
    Json::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Sink for Devices {
    fn event(&mut self, at: At, event: &Event<'_>, _: &Blocks) -> Result<()> {
        match event {
            Event::SectionBegins(section) if section.kind == SectionKind::Full => self.bytes.clear(),
            Event::Data(bytes) => self.data(at, bytes)?,
            Event::SectionEnds { section, began } => {
                let bytes = std::mem::take(&mut self.bytes);
                if section.kind == SectionKind::Full {
                    let (section, began) = ((*section).clone(), *began);
                    self.kept.push(Kept { section, began, data_at: self.data_at, bytes });
                } else {
                    self.total -= bytes.len();
                }
            }
            Event::Description(piece)
                if self.description.len() as u64 + piece.len() as u64 <= MOST_DESCRIPTION =>
            {
                self.description.extend_from_slice(piece);
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}
