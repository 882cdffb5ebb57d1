//! docs/policies.md has a line for every policy, with its knobs, and says whether it ends.

use crate::policy::POLICIES;

const PAGE: &str = include_str!("../../../../docs/policies.md");

/// The cells of a policy's line: name, rule, knobs, whether it ends, origin.
fn row(name: &str) -> Vec<&'static str> {
    let start = format!("| `{name}` |");
    let line = PAGE.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("docs/policies.md has no line for {name}"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// Whether the page says that a policy ends whatever the guest does; none if that depends on its parts.
pub fn ends(name: &str) -> Option<bool> {
    match row(name)[3] {
        "yes" => Some(true),
        "no" => Some(false),
        "as its parts" => None,
        other => panic!("{name} ends `{other}`"),
    }
}

#[test]
fn every_policy_has_a_line_with_its_knobs() {
    for entry in POLICIES.entries {
        let row = row(entry.name);
        assert_eq!(row.len(), 5, "{}: {row:?}", entry.name);
        assert!(ends(entry.name).is_some() || entry.name == "any-of");
        for knob in entry.knobs {
            assert!(row[2].contains(&format!("`{}`", knob.name)), "{} has {}", entry.name, knob.name);
        }
        let named = row[2].matches('`').count() / 2;
        assert_eq!(named, entry.knobs.len(), "{} has no other knobs: {}", entry.name, row[2]);
    }
}

#[test]
fn every_line_is_a_policy() {
    let lines = PAGE.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(lines, POLICIES.entries.len());
}

#[test]
fn every_policy_says_where_it_is_from_and_whether_it_ends() {
    for entry in POLICIES.entries {
        let doc = entry.doc.concat();
        assert!(entry.doc[0].ends_with('.'), "{}: the first line sums it up", entry.name);
        assert!(doc.contains("Origin:"), "{}", entry.name);
        assert!(doc.contains("always ends") || doc.contains("never ends"), "{}", entry.name);
        assert!(entry.knobs.iter().all(|knob| !knob.doc.is_empty()), "{}", entry.name);
    }
}
