//! Policies of both languages in the other.

use std::sync::{Mutex, PoisonError};

use migrate_core::knobs::Spec;
use migrate_core::policy::{self as core, Decision, Round, Sample};
use migrate_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::to_python;
use crate::registry::{parse, text};

/// A Python callable that is given a round as JSON, keeps its own history, and answers with a decision as
/// JSON. What it raises is kept whole.
struct Foreign {
    call: Py<PyAny>,
    /// Whether its method `sample` wants samples.
    samples: bool,
}

fn raised(reason: String, error: PyErr) -> Error {
    Error::Policy { reason, source: Some(Box::new(error)) }
}

impl core::Policy for Foreign {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        Python::attach(|py| {
            let ask = || {
                let answer: String = self.call.call1(py, (text(round)?,))?.extract(py)?;
                parse(py, "decision", &answer)
            };
            ask().map_err(|error| raised(format!("it raised {error}"), error))
        })
    }

    fn sample(&mut self, sample: &Sample) -> Result<Option<Decision>> {
        if !self.samples {
            return Ok(None);
        }
        Python::attach(|py| {
            let ask = || {
                let answer = self.call.call_method1(py, "sample", (text(sample)?,))?;
                let answer: Option<String> = answer.extract(py)?;
                answer.map(|answer| parse(py, "decision", &answer)).transpose()
            };
            ask().map_err(|error| raised(format!("it raised {error}"), error))
        })
    }
}

/// The policy that `given` is: a spec as JSON text, or a callable from JSON to JSON.
pub fn out_of(given: &Bound<'_, PyAny>) -> PyResult<Box<dyn core::Policy>> {
    let Ok(spec) = given.cast::<PyString>() else {
        let samples = match given.getattr_opt("samples")? {
            Some(samples) => samples.extract()?,
            None => false,
        };
        return Ok(Box::new(Foreign { call: given.clone().unbind(), samples }));
    };
    let spec: Spec = parse(given.py(), "policy", &spec.to_cow()?)?;
    core::find(&spec).map_err(|error| to_python(given.py(), error))
}

/// A policy as the core has it, to be asked from Python. It remembers the rounds that it was shown.
#[pyclass(frozen, module = "switchover._native")]
pub struct Policy {
    state: Mutex<(Box<dyn core::Policy>, Vec<Round>)>,
}

#[pymethods]
impl Policy {
    #[new]
    fn new(policy: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { state: Mutex::new((out_of(policy)?, Vec::new())) })
    }

    /// Asks about `round` after adding `earlier`, oldest first, to what it remembers.
    fn decide(&self, py: Python<'_>, round: &str, earlier: Vec<String>) -> PyResult<String> {
        let round: Round = parse(py, "round", round)?;
        let earlier = earlier.iter().map(|round| parse(py, "round", round)).collect::<PyResult<Vec<_>>>()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (policy, history) = &mut *state;
        history.extend(earlier);
        let decision = policy.decide(&round, history).map_err(|error| to_python(py, error))?;
        text(&decision)
    }

    /// Shows it how the copy stands in the middle of a round; its decision, if it makes one there.
    fn sample(&self, py: Python<'_>, sample: &str) -> PyResult<Option<String>> {
        let sample: Sample = parse(py, "sample", sample)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = state.0.sample(&sample).map_err(|error| to_python(py, error))?;
        decision.map(|decision| text(&decision)).transpose()
    }
}
