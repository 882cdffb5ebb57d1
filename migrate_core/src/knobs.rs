//! Named parts and their knobs: one mechanism for workloads, trackers, codecs, strategies, policies.
//!
//! A part is a struct declared by [`knobs!`](crate::knobs!): its fields are its knobs, each with unit,
//! range, default and doc comment. A [`Registry`] lists the parts of one kind. A [`Spec`] names one
//! part and sets some of its knobs; it is what command lines, suites, the wire and Python pass around.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Knobs as they were given: names and JSON values.
pub type Given = Map<String, Value>;

/// What a knob's number stands for. Python and the command line parse texts such as "300ms" by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes ("1GiB").
    Bytes,
    /// Bytes per second ("200MB/s", "1Gbit/s").
    BytesPerSecond,
    /// Seconds ("300ms").
    Seconds,
    /// A whole number.
    Count,
    /// A plain number; a share is between 0 and 1.
    Ratio,
    /// True or false.
    Flag,
    /// A word, often one of a few.
    Text,
    /// Other parts, each a [`Spec`].
    Parts,
}

/// One parameter of a part.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Name, as in Python and on the command line.
    pub name: &'static str,
    /// What it does, and its source where it has one.
    pub doc: &'static [&'static str],
    /// What its value stands for.
    pub unit: Unit,
    /// Least and greatest value for numbers.
    pub range: Option<(f64, f64)>,
    /// Default; `null` means that it must be set or is off.
    pub default: fn() -> Value,
}

/// A part's name and the knobs that were set: `{"name": "zipf", "s": 0.8}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name in the registry of its kind.
    pub name: String,
    /// Knobs by name; the rest have their defaults.
    #[serde(flatten)]
    pub knobs: Map<String, Value>,
}

impl Spec {
    /// The part `name` with its defaults.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), knobs: Map::new() }
    }

    /// The same with one knob set.
    #[must_use]
    pub fn with(mut self, knob: &str, value: impl Into<Value>) -> Self {
        self.knobs.insert(knob.to_owned(), value.into());
        self
    }
}

/// A struct whose fields are knobs; implemented by [`knobs!`](crate::knobs!).
pub trait Knobs: Sized {
    /// The knobs in the order of declaration.
    const KNOBS: &'static [Knob];
    /// The struct's doc comment, a line an element.
    const DOC: &'static [&'static str];
    /// Builds the part, refusing unknown knobs, wrong types and values out of range.
    fn from_knobs(given: &Given) -> Result<Self>;
}

/// A type that a knob can have.
pub trait KnobValue: Sized {
    /// Out of JSON; `Err` says what was expected.
    fn from_value(value: &Value) -> std::result::Result<Self, String>;
    /// The value as a number, if it has one, for the range check.
    fn number(&self) -> Option<f64> {
        None
    }
}

impl KnobValue for f64 {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        value.as_f64().ok_or_else(|| format!("a number, not {value}"))
    }
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl KnobValue for u64 {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        let whole = |x: f64| (x >= 0.0 && x.fract() == 0.0 && x < 9e15).then_some(x as u64);
        value
            .as_u64()
            .or_else(|| value.as_f64().and_then(whole))
            .ok_or_else(|| format!("a whole number from 0, not {value}"))
    }
    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl KnobValue for i64 {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
        value
            .as_i64()
            .or_else(|| value.as_f64().and_then(whole))
            .ok_or_else(|| format!("a whole number, not {value}"))
    }
    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl KnobValue for bool {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("true or false, not {value}"))
    }
}

impl KnobValue for String {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(format!("a text, not {value}")),
        }
    }
}

impl KnobValue for Spec {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        serde_json::from_value(value.clone()).map_err(|e| format!("a part such as {{\"name\": …}}: {e}"))
    }
}

impl<T: KnobValue> KnobValue for Vec<T> {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("a list, not {value}"))?;
        list.iter().map(T::from_value).collect()
    }
}

impl<T: KnobValue> KnobValue for Option<T> {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        if value.is_null() {
            return Ok(None);
        }
        T::from_value(value).map(Some)
    }
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

/// Reads knob `knob` out of `given`, or its default; used by [`knobs!`](crate::knobs!).
pub fn read<T: KnobValue>(part: &str, knob: &Knob, given: &Given) -> Result<T> {
    let default = (knob.default)();
    let value = given.get(knob.name).unwrap_or(&default);
    let wrong = |expected: String| Error::usage(format!("{part}: {} must be {expected}", knob.name));
    let parsed = T::from_value(value).map_err(wrong)?;
    match (parsed.number(), knob.range) {
        (Some(x), Some((least, most))) if !(least <= x && x <= most) => {
            Err(wrong(format!("from {least} to {most}, not {x}")))
        }
        _ => Ok(parsed),
    }
}

/// Refuses knobs that the part does not have, naming the nearest that it has.
pub fn refuse_unknown(part: &str, knobs: &[Knob], given: &Given) -> Result<()> {
    let names: Vec<&str> = knobs.iter().map(|k| k.name).collect();
    match given.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::usage(format!("{part} has no knob `{key}`{}", suggest(key, &names)))),
    }
}

/// "; did you mean `x`?" or the choices, for a name that is not among `names`.
pub fn suggest(wrong: &str, names: &[&str]) -> String {
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match near {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None if names.is_empty() => String::new(),
        None => format!("; there are: {}", names.join(", ")),
    }
}

/// The range of a knob as the pair that [`Knob::range`] keeps.
pub const fn bounds(range: &RangeInclusive<f64>) -> Option<(f64, f64)> {
    Some((*range.start(), *range.end()))
}

/// Declares a part: a struct whose fields are knobs.
///
/// ```
/// use migrate_core::knobs::{Knobs, Spec};
/// migrate_core::knobs! {
///     /// Stops after so many rounds.
///     pub struct Rounds {
///         /// Rounds of live copying.
///         most: u64 [Count, 1.0..=1e6] = 30,
///     }
/// }
/// assert_eq!(Rounds::from_knobs(&Spec::new("rounds").with("most", 5).knobs).unwrap().most, 5);
/// assert!(Rounds::from_knobs(&Spec::new("rounds").with("mots", 5).knobs).is_err());
/// ```
#[macro_export]
macro_rules! knobs {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $part:ident {
            $(
                $(#[doc = $knob_doc:literal])*
                $knob:ident : $type:ty [$unit:ident $(, $range:expr)?] = $default:expr
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $vis struct $part {
            $( $(#[doc = $knob_doc])* pub $knob: $type, )*
        }

        impl $crate::knobs::Knobs for $part {
            const DOC: &'static [&'static str] = &[$($doc),*];
            const KNOBS: &'static [$crate::knobs::Knob] = &[
                $( $crate::knobs::Knob {
                    name: stringify!($knob),
                    doc: &[$($knob_doc),*],
                    unit: $crate::knobs::Unit::$unit,
                    range: $crate::knobs!(@range $($range)?),
                    default: || ::serde_json::json!($default),
                } ),*
            ];

            fn from_knobs(
                given: &$crate::knobs::Given,
            ) -> $crate::error::Result<Self> {
                let part = stringify!($part);
                $crate::knobs::refuse_unknown(part, Self::KNOBS, given)?;
                // Struct fields are evaluated in the order written, which is that of KNOBS.
                let mut _knobs = Self::KNOBS.iter();
                Ok(Self {
                    $( $knob: match _knobs.next() {
                        Some(knob) => $crate::knobs::read(part, knob, given)?,
                        None => unreachable!("a knob for each field"),
                    } ),*
                })
            }
        }
    };
    (@range) => { None };
    (@range $range:expr) => { $crate::knobs::bounds(&$range) };
}

/// A line of a registry: a part that can be asked for by name.
pub struct Entry<Make: 'static> {
    /// Name in Python (as a class, CamelCase), on the command line and in files.
    pub name: &'static str,
    /// What it is; the first line sums it up.
    pub doc: &'static [&'static str],
    /// Its knobs.
    pub knobs: &'static [Knob],
    /// Refuses knobs that it does not have, wrong types and values out of range.
    pub check: fn(&Given) -> Result<()>,
    /// Builds it; the function's type belongs to the kind.
    pub make: Make,
}

impl<Make> Entry<Make> {
    /// The entry of a part declared by [`knobs!`](crate::knobs!).
    pub const fn of<P: Knobs>(name: &'static str, make: Make) -> Self {
        Self { name, doc: P::DOC, knobs: P::KNOBS, check: |given| P::from_knobs(given).map(drop), make }
    }

    /// The part as JSON: name, doc, knobs with unit, range and default.
    pub fn describe(&self) -> Value {
        let knob = |k: &Knob| {
            serde_json::json!({
                "name": k.name, "doc": text(k.doc), "unit": k.unit, "range": k.range, "default": (k.default)(),
            })
        };
        serde_json::json!({
            "name": self.name, "doc": text(self.doc),
            "knobs": self.knobs.iter().map(knob).collect::<Vec<_>>(),
        })
    }
}

fn text(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

/// The parts of one kind, in the order in which they are shown.
pub struct Registry<Make: 'static> {
    /// The kind in singular ("workload").
    pub kind: &'static str,
    /// Its parts.
    pub entries: &'static [Entry<Make>],
}

impl<Make> Registry<Make> {
    /// The entry called `name`; an unknown name is a usage error that names the nearest.
    pub fn find(&self, name: &str) -> Result<&'static Entry<Make>> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.entries.iter().map(|entry| entry.name).collect();
            Error::usage(format!("no {} is called `{name}`{}", self.kind, suggest(name, &names)))
        })
    }

    /// Refuses an unknown name, and knobs that the part cannot have.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        (self.find(&spec.name)?.check)(&spec.knobs)
    }

    /// All parts as JSON.
    pub fn describe(&self) -> Value {
        self.entries.iter().map(Entry::describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::knobs! {
        /// Writes pages.
        /// Second line.
        struct Writer {
            /// Bytes written per second.
            rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
            /// How many pages.
            pages: u64 [Count] = 3,
            /// A name.
            label: Option<String> [Text] = (),
        }
    }

    fn given(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn defaults_and_given_values() {
        let part = Writer::from_knobs(&given(serde_json::json!({"pages": 7.0}))).unwrap();
        assert_eq!((part.rate, part.pages, part.label), (1e8, 7, None));
    }

    #[test]
    fn errors_name_knob_and_choice() {
        let error = |json| Writer::from_knobs(&given(json)).unwrap_err().to_string();
        assert_eq!(error(serde_json::json!({"rat": 1})), "Writer has no knob `rat`; did you mean `rate`?");
        assert_eq!(
            error(serde_json::json!({"rate": -1})),
            "Writer: rate must be from 0 to 1000000000000, not -1"
        );
        assert_eq!(
            error(serde_json::json!({"pages": 1.5})),
            "Writer: pages must be a whole number from 0, not 1.5"
        );
    }

    #[test]
    fn unknown_parts_are_answered_with_the_nearest() {
        static WRITERS: Registry<()> =
            Registry { kind: "workload", entries: &[Entry::of::<Writer>("writer", ())] };
        let registry = &WRITERS;
        assert_eq!(
            registry.find("writr").err().unwrap().to_string(),
            "no workload is called `writr`; did you mean `writer`?"
        );
        assert!(registry.find("writer").is_ok());
    }

    #[test]
    fn description_carries_docs_units_and_defaults() {
        let json = Entry::of::<Writer>("writer", ()).describe();
        assert_eq!(json["doc"], "Writes pages.\nSecond line.");
        assert_eq!(json["knobs"][0]["unit"], "bytes_per_second");
        assert_eq!(json["knobs"][0]["default"], 1e8);
    }
}
