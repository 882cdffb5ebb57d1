//! Tests over all policies: decision tables, properties, replays.

mod decisions;
mod docs;
mod histories;
mod hostile;
mod properties;
mod xen;

use crate::knobs::Spec;

/// Every policy with its defaults; those without any get the least that makes one.
fn all() -> Vec<Spec> {
    let spec = |name| match name {
        "any-of" => {
            let parts = ["cloud-hypervisor", "qemu-auto-converge"];
            Spec::new(name).with("policies", parts.map(|part| serde_json::json!({ "name": part })).to_vec())
        }
        name => Spec::new(name),
    };
    super::POLICIES.entries.iter().map(|entry| spec(entry.name)).collect()
}
