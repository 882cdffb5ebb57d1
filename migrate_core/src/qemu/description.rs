//! The VM description: a JSON text at the end of a stream that says what device state is made of.
//!
//! Devices come in the order of their sections. Sections that begin, go on and end (`ram`) are not in it. A list's
//! elements write their keys into the same object, again and again: objects are kept as lists of pairs.
//!
//! Layout: QEMU, `migration/vmstate.c` (`vmstate_save_state_v`, `vmsd_desc_field_start`).

mod decode;
mod json;

pub use decode::decode;
pub use json::Json;

use super::stream::Lengths;
use crate::error::{Error, Result};

/// A device, or a part of one: a vmstate with fields and subsections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Its format's name.
    pub name: String,
    /// Its format's version.
    pub version: u64,
    /// In the order of the bytes.
    pub fields: Vec<Field>,
    /// In the order of the bytes, after the fields.
    pub subsections: Vec<State>,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name; several fields may share one.
    pub name: String,
    /// Its type's name.
    pub kind: String,
    /// Bytes of one element.
    pub bytes: u64,
    /// How many elements stand for all, where they are alike.
    pub elements: Option<u64>,
    /// Which element it is, where they are listed one by one.
    pub index: Option<u64>,
    /// What is inside, where the field is a structure.
    pub inside: Option<State>,
}

/// A device's section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The section's name.
    pub name: String,
    /// The section's instance.
    pub instance: u32,
    /// Bytes of the section, where the device has no description beyond them.
    pub bytes: Option<u64>,
    /// What it is made of.
    pub state: State,
}

/// What the text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Size of a page in bytes.
    pub page_bytes: Option<u64>,
    /// The devices in the order of their sections.
    pub devices: Vec<Device>,
}

impl Description {
    /// Reads the text, which is at `at` in its stream.
    ///
    /// # Errors
    /// [`Error::Stream`]: it is not JSON, or not a description.
    pub fn read(text: &[u8], at: u64) -> Result<Self> {
        let json = Json::read(text, at)?;
        let wrong = |what: &str| Error::stream(at, format!("the VM description has {what}"));
        let devices = json.get("devices").and_then(Json::list).ok_or_else(|| wrong("no list of devices"))?;
        let devices = devices.iter().map(device).collect::<Option<Vec<_>>>();
        let devices = devices.ok_or_else(|| wrong("a device without a name, an instance or its fields"))?;
        Ok(Self { page_bytes: json.get("page_size").and_then(Json::number), devices })
    }

    /// Lengths of the devices' sections.
    pub fn lengths(&self) -> Lengths {
        let mut lengths = Lengths::default();
        for device in &self.devices {
            if let Some(bytes) = device.section_bytes() {
                lengths.add(&device.name, device.instance, bytes);
            }
        }
        lengths
    }

    /// The device of a section.
    pub fn find(&self, name: &str, instance: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.instance == instance && device.name == name)
    }
}

impl Device {
    /// Length of its section, without head and footer; `None` where the description's numbers are beyond all measure.
    pub fn section_bytes(&self) -> Option<u64> {
        match self.bytes {
            Some(bytes) => Some(bytes),
            None => self.state.bytes(),
        }
    }
}

impl State {
    /// Bytes of the fields and the subsections, heads of the latter included.
    pub fn bytes(&self) -> Option<u64> {
        let fields = self.fields.iter().map(Field::all_bytes);
        let subsections = self.subsections.iter().map(|part| part.bytes()?.checked_add(part.head_bytes()));
        fields.chain(subsections).try_fold(0u64, |sum, bytes| sum.checked_add(bytes?))
    }

    /// Bytes of a subsection's head: its mark, its name and its version.
    pub fn head_bytes(&self) -> u64 {
        6 + self.name.len() as u64
    }
}

impl Field {
    fn all_bytes(&self) -> Option<u64> {
        self.bytes.checked_mul(self.elements.unwrap_or(1))
    }
}

fn device(json: &Json) -> Option<Device> {
    let name = json.get("name")?.text()?.to_owned();
    // Devices of the oldest kind have an instance of -1 for "any".
    let instance = json.get("instance_id")?.number()? as u32;
    let (bytes, state) = match json.get("vmsd_name") {
        Some(_) => (None, state(json)?),
        None => (Some(json.get("size")?.number()?), State::default()),
    };
    Some(Device { name, instance, bytes, state })
}

fn state(json: &Json) -> Option<State> {
    let list = |key| json.get(key).and_then(Json::list).unwrap_or_default();
    Some(State {
        name: json.get("vmsd_name")?.text()?.to_owned(),
        version: json.get("version").and_then(Json::number).unwrap_or_default(),
        fields: list("fields").iter().map(field).collect::<Option<_>>()?,
        subsections: list("subsections").iter().map(state).collect::<Option<_>>()?,
    })
}

fn field(json: &Json) -> Option<Field> {
    let kind = json.get("type").and_then(Json::text).unwrap_or_default().to_owned();
    // Only a plain structure has its content described; what lists write beside their fields is not in order.
    let inside = json.get("struct").filter(|_| kind == "struct").and_then(state);
    Some(Field {
        name: json.get("name")?.text()?.to_owned(),
        bytes: json.get("size")?.number()?,
        elements: json.get("array_len").and_then(Json::number),
        index: json.get("index").and_then(Json::number),
        kind,
        inside,
    })
}

#[cfg(test)]
mod tests;
