//! Device state by its description: bytes become named values.

use super::{Device, Field, Json, State};
use crate::error::{Error, Result};
use crate::qemu::cursor::{whole, wrong, Cursor, Read};

const SUBSECTION: u8 = 5;
/// Longest buffer that is shown as it is, in bytes; the names of what is longer say how long it is.
const MOST_SHOWN: usize = 1 << 16;

/// The values in `bytes`, a section of `device` that is at `at`.
///
/// Numbers are numbers; buffers and what has no known form are hexadecimal texts. Fields that share a name become a
/// list, as do an array's elements.
///
/// # Errors
/// [`Error::Stream`]: the bytes are more, fewer or others than the description says.
pub fn decode(device: &Device, bytes: &[u8], at: u64) -> Result<Json> {
    let mut cursor = Cursor::new(bytes, at);
    let end = at + bytes.len() as u64;
    if device.bytes.is_some() {
        return Ok(Json::Object(vec![("data".into(), hexadecimal(bytes))]));
    }
    let value = whole(state(&device.state, &mut cursor), end, "what the VM description says is in them")?;
    match cursor.offset() == end {
        true => Ok(value),
        false => {
            let text = format!(
                "`{}` has {} bytes more than the VM description says",
                device.name,
                end - cursor.offset()
            );
            Err(Error::stream(cursor.offset(), text))
        }
    }
}

fn state(state: &State, cursor: &mut Cursor<'_>) -> Read<Json> {
    let mut pairs = Vec::new();
    for field in &state.fields {
        add(&mut pairs, field, value(field, cursor)?);
    }
    for part in &state.subsections {
        pairs.push((part.name.clone(), subsection(part, cursor)?));
    }
    Ok(Json::Object(pairs))
}

/// Puts a field's value under its name. An array may come as several fields of its name: elements one by one, runs of
/// them, empty ones between; QEMU 10.0 numbers only some.
fn add(pairs: &mut Vec<(String, Json)>, field: &Field, value: Json) {
    let mut more = match (value, field.elements, field.index) {
        (Json::List(list), Some(_), _) => list,
        (value, _, Some(0)) => return pairs.push((field.name.clone(), Json::List(vec![value]))),
        (value, ..) => vec![value],
    };
    match pairs.last_mut().filter(|(name, _)| *name == field.name) {
        Some((_, Json::List(list))) => list.append(&mut more),
        Some((_, first)) => {
            more.insert(0, std::mem::replace(first, Json::Null));
            *first = Json::List(more);
        }
        None if field.elements.is_some() => pairs.push((field.name.clone(), Json::List(more))),
        None => pairs.extend(more.pop().map(|value| (field.name.clone(), value))),
    }
}

fn subsection(part: &State, cursor: &mut Cursor<'_>) -> Read<Json> {
    let at = cursor.offset();
    let (mark, name, version) = (cursor.byte()?, cursor.name("the name of a subsection")?, cursor.be32()?);
    if mark != SUBSECTION || name != part.name || u64::from(version) != part.version {
        let text = format!("subsection `{name}` version {version}, marked {mark}");
        return Err(wrong(at, format!("{text}; `{}` version {} was expected", part.name, part.version)));
    }
    state(part, cursor)
}

fn value(field: &Field, cursor: &mut Cursor<'_>) -> Read<Json> {
    let Some(count) = field.elements else { return element(field, cursor) };
    // No element is empty, so the bytes bound their number.
    if field.bytes == 0 {
        return Ok(Json::List(Vec::new()));
    }
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(element(field, cursor)?);
    }
    Ok(Json::List(list))
}

fn element(field: &Field, cursor: &mut Cursor<'_>) -> Read<Json> {
    let at = cursor.offset();
    let bytes = cursor.take(usize::try_from(field.bytes).unwrap_or(usize::MAX))?;
    match &field.inside {
        Some(inside) => structure(field, inside, bytes, at),
        None => Ok(scalar(&field.kind, bytes)),
    }
}

/// A structure in its own bytes; where they do not fit its description they are shown as they are.
fn structure(field: &Field, inside: &State, bytes: &[u8], at: u64) -> Read<Json> {
    let mut cursor = Cursor::new(bytes, at);
    let value = whole(state(inside, &mut cursor), at + field.bytes, "a structure");
    match (value, cursor.used() == bytes.len()) {
        (Ok(value), true) => Ok(value),
        _ => Ok(hexadecimal(bytes)),
    }
}

/// A value by the name of its type.
fn scalar(kind: &str, bytes: &[u8]) -> Json {
    let unsigned = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let shift = 64 - 8 * bytes.len().min(8) as u32;
    match kind.split_whitespace().next().unwrap_or_default() {
        "bool" if bytes.len() == 1 => Json::Bool(unsigned != 0),
        "uint8" | "uint16" | "uint32" | "uint64" if bytes.len() <= 8 => Json::Number(unsigned),
        "int8" | "int16" | "int32" | "int64" if (1..=8).contains(&bytes.len()) => {
            let value = (unsigned << shift) as i64 >> shift;
            u64::try_from(value).map_or(Json::Signed(value), Json::Number)
        }
        // Not armed.
        "timer" if bytes.len() == 8 && unsigned == u64::MAX => Json::Null,
        "timer" | "cpudouble" if bytes.len() == 8 => Json::Number(unsigned),
        "nullptr" => Json::Null,
        "capability" if bytes.len() > 1 => Json::Text(String::from_utf8_lossy(&bytes[1..]).into_owned()),
        _ => hexadecimal(bytes),
    }
}

fn hexadecimal(bytes: &[u8]) -> Json {
    let shown = bytes.iter().take(MOST_SHOWN).map(|byte| format!("{byte:02x}")).collect::<String>();
    match bytes.len() {
        0..=MOST_SHOWN => Json::Text(shown),
        more => Json::Text(format!("{shown}... ({more} bytes)")),
    }
}
