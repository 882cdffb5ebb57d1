//! What a migration cost a guest whose progress Python has heard.

use migrate_core::report::{Cost, Point};
use pyo3::prelude::*;

use crate::registry::{parse, text};

/// Brownout and effective downtime as JSON, out of points as a report has them: `before` in operations per second,
/// `blackout` in seconds.
#[pyfunction]
#[pyo3(signature = (points, before, blackout))]
pub fn cost(py: Python<'_>, points: &str, before: Option<f64>, blackout: Option<f64>) -> PyResult<String> {
    let points: Vec<Point> = parse(py, "progress", points)?;
    text(&Cost::of(&points, before, blackout))
}
