//! What parts there are, and specs of them.

use migrate_core::codec::{self, CODECS};
use migrate_core::guest::content::CONTENTS;
use migrate_core::guest::workload::WORKLOADS;
use migrate_core::knobs::Spec;
use migrate_core::policy::{self, POLICIES};
use migrate_core::strategy::prepaging::{self, PREPAGING};
use migrate_core::strategy::{self, STRATEGIES};
use migrate_core::track::TRACKERS;
use migrate_core::{Error, Result};
use pyo3::prelude::*;
use serde_json::{json, Value};

use crate::errors::{to_python, usage};

/// Reads a value of the core out of JSON; the text is ours, or a wrong argument.
pub fn parse<T: serde::de::DeserializeOwned>(py: Python<'_>, what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| to_python(py, Error::usage(format!("{what}: {error}"))))
}

/// A value of the core as JSON.
pub fn text<T: serde::Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| usage(error.to_string()))
}

/// The parts of a kind as JSON: name, doc, knobs with unit, range and default; for trackers also why
/// they are not available here (null where they are), and whose writes they see.
#[pyfunction]
pub fn describe(kind: &str) -> PyResult<String> {
    let parts = match kind {
        "workload" => WORKLOADS.describe(),
        "policy" => POLICIES.describe(),
        "strategy" => STRATEGIES.describe(),
        "prepaging" => PREPAGING.describe(),
        "codec" => CODECS.describe(),
        "content" => CONTENTS.describe(),
        "tracker" => trackers(),
        _ => return Err(usage(format!("there are no parts of kind `{kind}`"))),
    };
    text(&parts)
}

fn trackers() -> Value {
    let tracker = |entry: &migrate_core::knobs::Entry<migrate_core::track::Make>| {
        let mut described = entry.describe();
        let reason = (entry.make.probe)().err().map(|error| match error {
            Error::TrackerUnavailable { reason, .. } => reason,
            other => other.to_string(),
        });
        described["unavailable"] = json!(reason);
        described["sees_all_writers"] = json!(entry.make.sees_all_writers);
        described["only_vcpus"] = json!(entry.make.only_vcpus);
        described
    };
    TRACKERS.entries.iter().map(tracker).collect()
}

/// Refuses an unknown name, unknown knobs and wrong values, saying what there is.
#[pyfunction]
pub fn check(py: Python<'_>, kind: &str, spec: &str) -> PyResult<()> {
    let spec: Spec = parse(py, kind, spec)?;
    checked(kind, &spec).map_err(|error| to_python(py, error))
}

fn checked(kind: &str, spec: &Spec) -> Result<()> {
    match kind {
        "workload" => WORKLOADS.check(spec),
        "policy" => policy::find(spec).map(drop),
        "strategy" => strategy::find(spec).map(drop),
        "prepaging" => prepaging::find(spec, 1).map(drop),
        "codec" => codec::find(spec).map(drop),
        "content" => CONTENTS.check(spec),
        "tracker" => TRACKERS.check(spec),
        _ => Err(Error::usage(format!("there are no parts of kind `{kind}`"))),
    }
}
