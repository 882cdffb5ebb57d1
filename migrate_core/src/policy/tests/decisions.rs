//! What each policy does on each shared history, as a text that can be read and reviewed.
//!
//! After a change that is meant: `UPDATE_SNAPSHOTS=1 cargo test -p migrate_core decisions`, and review the diff.

use std::fmt::Write;

use super::histories::{drive, shared, Done};
use crate::policy::{find, Act};

const SNAPSHOT: &str = include_str!("decisions.txt");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/tests/decisions.txt");

/// A value in thousandths of its unit, so that the text has whole numbers only.
fn milli(value: f64) -> u64 {
    (value * 1000.0).round() as u64
}

fn word(act: Act) -> String {
    match act {
        Act::Throttle { percent } => format!("throttle {}%", percent.round()),
        Act::Limit { blackout: Some(limit), .. } => format!("limit {}ms", milli(limit)),
        Act::Limit { bandwidth: Some(rate), .. } => format!("rate {}KB/s", milli(rate / 1e6)),
        Act::Limit { dirty_rate: Some(rate), .. } => format!("quota {}KB/s", milli(rate / 1e6)),
        Act::Limit { write_delay: Some(delay), .. } => format!("delay {}us", milli(delay * 1000.0)),
        Act::SwitchOver => "SWITCH OVER".into(),
        Act::PostCopy => "POST-COPY".into(),
        Act::Abort => "ABORT".into(),
        other => format!("{other:?}"),
    }
}

/// Of a long line, what is shown at its beginning and its end.
const FIRST: usize = 12;
const LAST: usize = 3;

/// A line: what was done in which round and at what time, and why it ended.
fn line(done: &[Done]) -> String {
    let mut text = String::new();
    let skipped = FIRST..done.len().saturating_sub(LAST);
    for (i, Done { round, elapsed, decision }) in done.iter().enumerate() {
        if skipped.contains(&i) {
            text.push_str(if i == skipped.start { " ..;" } else { "" });
            continue;
        }
        write!(text, " r{round}@{}ms {};", milli(*elapsed), word(decision.act)).unwrap();
    }
    match done.last().filter(|last| last.decision.act.ends()) {
        Some(last) => write!(text, " by {}", last.decision.reason.quantity).unwrap(),
        None => text.push_str(" runs on"),
    }
    if !skipped.is_empty() {
        write!(text, " ({} acts)", done.len()).unwrap();
    }
    text
}

fn table() -> String {
    let mut text = String::new();
    for spec in super::all() {
        writeln!(text, "{}", spec.name).unwrap();
        for (history, rounds) in shared() {
            let mut policy = find(&spec).unwrap();
            writeln!(text, "  {history}:{}", line(&drive(&mut *policy, &rounds, true))).unwrap();
        }
    }
    text
}

#[test]
fn decisions_are_those_of_the_snapshot() {
    let table = table();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(PATH, &table).unwrap();
        return;
    }
    for (number, (is, was)) in table.lines().zip(SNAPSHOT.lines()).enumerate() {
        assert_eq!(is, was, "decisions.txt, line {}", number + 1);
    }
    assert_eq!(table.lines().count(), SNAPSHOT.lines().count());
}
