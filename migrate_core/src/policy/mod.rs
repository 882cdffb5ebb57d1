//! Policies: when to switch over, throttle, go post-copy, or give up.
//!
//! A policy is one file here and one line of [`POLICIES`]. It sees [`Round`]s and answers with
//! [`Decision`]s; it reads no clock, does no I/O and draws no unseeded random number, so that the same
//! policy runs on real memory, in the simulator and on a real VM.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod any_of;
mod auto_converge;
mod cloud_hypervisor;
mod dirty_limit;
mod dirty_threshold;
mod downtime_limit;
mod drafter;
mod fraction;
mod handbook;
mod kubevirt_legacy;
mod kubevirt_stall;
mod libvirt_timeout;
mod local_minimum;
mod lxd_predump;
mod max_rounds;
mod no_progress;
mod ovirt;
mod proxmox;
mod qemu;
mod ramp;
mod simgrid;
mod time_limit;
mod vmotion_sdps;
mod watch;
mod xen;

#[cfg(test)]
mod tests;

pub use any_of::AnyOf;
pub use auto_converge::QemuAutoConverge;
pub use cloud_hypervisor::{CloudHypervisor, CloudHypervisorThrottle};
pub use dirty_limit::{QemuDirtyLimit, WriterQuota};
pub use dirty_threshold::DirtyThreshold;
pub use downtime_limit::DowntimeLimit;
pub use drafter::Drafter;
pub use fraction::Fraction;
pub use handbook::Handbook;
pub use kubevirt_legacy::{KubevirtDowntime, KubevirtLegacy};
pub use kubevirt_stall::KubevirtStall;
pub use libvirt_timeout::LibvirtTimeout;
pub use local_minimum::LocalMinimum;
pub use lxd_predump::LxdPredump;
pub use max_rounds::MaxRounds;
pub use no_progress::NoProgress;
pub use ovirt::{OvirtMinimalDowntime, OvirtPostCopy, OvirtSuspend, OvirtVeryLarge};
pub use proxmox::Proxmox;
pub use qemu::{Qemu, QemuAvailBandwidth};
pub use ramp::{Nova, OvirtLegacy};
pub use simgrid::Simgrid;
pub use time_limit::TimeLimit;
pub use vmotion_sdps::VmotionSdps;
pub use xen::{Xen, XenLibxl};

/// The policies there are.
pub static POLICIES: Registry<Make> = Registry {
    kind: "policy",
    entries: &[
        entry::<DowntimeLimit>("downtime-limit"),
        entry::<MaxRounds>("max-rounds"),
        entry::<DirtyThreshold>("dirty-threshold"),
        entry::<TimeLimit>("time-limit"),
        entry::<AnyOf>("any-of"),
        entry::<Qemu>("qemu"),
        entry::<QemuAvailBandwidth>("qemu-avail-bandwidth"),
        entry::<QemuAutoConverge>("qemu-auto-converge"),
        entry::<QemuDirtyLimit>("qemu-dirty-limit"),
        entry::<Xen>("xen"),
        entry::<XenLibxl>("xen-libxl"),
        entry::<NoProgress>("no-progress"),
        entry::<Fraction>("fraction"),
        entry::<LocalMinimum>("local-minimum"),
        entry::<OvirtLegacy>("ovirt-legacy"),
        entry::<OvirtMinimalDowntime>("ovirt-minimal-downtime"),
        entry::<OvirtSuspend>("ovirt-suspend"),
        entry::<OvirtPostCopy>("ovirt-post-copy"),
        entry::<OvirtVeryLarge>("ovirt-very-large"),
        entry::<Nova>("nova"),
        entry::<Proxmox>("proxmox"),
        entry::<KubevirtLegacy>("kubevirt-legacy"),
        entry::<KubevirtDowntime>("kubevirt-downtime"),
        entry::<KubevirtStall>("kubevirt-stall"),
        entry::<CloudHypervisor>("cloud-hypervisor"),
        entry::<CloudHypervisorThrottle>("cloud-hypervisor-throttle"),
        entry::<LibvirtTimeout>("libvirt-timeout"),
        entry::<Drafter>("drafter"),
        entry::<LxdPredump>("lxd-predump"),
        entry::<Simgrid>("simgrid"),
        entry::<Handbook>("handbook"),
        entry::<VmotionSdps>("vmotion-sdps"),
    ],
};

/// One pass, as it stands at its end. Times are seconds, sizes bytes, rates bytes per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// 0 for the round that sends everything.
    pub index: u32,
    /// Whether the guest ran during it; the last round of a pre-copy is sent in the blackout.
    pub live: bool,
    /// When it began, from the migration's start.
    pub start: f64,
    /// How long it took, harvest included.
    pub duration: f64,
    /// Time since the migration's start, at its end.
    pub elapsed: f64,
    /// Bytes that it put on the link, headers included.
    pub sent_bytes: u64,
    /// Pages that it sent, of all kinds.
    pub sent_pages: u64,
    /// Of them, pages of zeros.
    pub zero_pages: u64,
    /// Of them, pages sent shorter than raw by a codec.
    pub encoded_pages: u64,
    /// Pages left out because they were dirty again.
    pub skipped_pages: u64,
    /// Bytes put on the link since the migration's start.
    pub total_sent_bytes: u64,
    /// Pages sent since the migration's start.
    pub total_sent_pages: u64,
    /// Pages dirty at its end.
    pub remaining_pages: u64,
    /// The same in bytes.
    pub remaining_bytes: u64,
    /// Unique pages written during it, in bytes per second: an interval statistic.
    pub dirty_rate: f64,
    /// Bytes per second over the last 100 ms or more.
    pub bandwidth: f64,
    /// `remaining_bytes / bandwidth` and the fixed cost of switchover, if known; infinite before there is
    /// a bandwidth.
    #[serde(deserialize_with = "infinite_if_null")]
    pub expected_blackout: f64,
    /// Share of their time that writers are held back, percent.
    pub throttle: f64,
    /// The guest's memory.
    pub memory_bytes: u64,
}

/// How the copy stands in the middle of a round. Times are seconds, sizes bytes, rates bytes per second.
///
/// A world takes one when round 0 begins and every 100 ms from then on, so that time-outs fire in a long
/// round and averages of bandwidth have something to average.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The round under way.
    pub round: u32,
    /// Time since the migration's start.
    pub elapsed: f64,
    /// Bytes per second over the last 100 ms or more; 0 before there is one.
    pub bandwidth: f64,
    /// Bytes of this round that are still to be sent; what was written since the harvest is not in it.
    pub remaining_bytes: u64,
    /// Bytes put on the link since the migration's start.
    pub sent_bytes: u64,
    /// The guest's memory.
    pub memory_bytes: u64,
}

/// JSON has no infinity: serde_json writes it as null.
fn infinite_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Why a decision was made: a quantity met its limit, in words that a chart can show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The quantity that decided, such as `expected_blackout`; empty for a free text.
    pub quantity: Cow<'static, str>,
    /// Its value.
    pub seen: f64,
    /// What it was held against.
    pub limit: f64,
    /// In words.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// `quantity` was `seen`, against `limit`.
    pub fn met(quantity: &'static str, seen: f64, limit: f64) -> Self {
        Self {
            quantity: quantity.into(),
            seen,
            limit,
            text: format!("{quantity} {seen:.6} against {limit:.6}").into(),
        }
    }

    /// A reason in words only.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Act {
    /// Another round.
    Proceed,
    /// Hold writers back for this share of their time, percent from 0 to 99.
    Throttle {
        /// Percent.
        percent: f64,
    },
    /// Change limits.
    Limit {
        /// Seconds of blackout that are allowed.
        blackout: Option<f64>,
        /// Bytes per second that may be used; 0 lifts the limit.
        bandwidth: Option<f64>,
        /// Bytes per second that each writer may dirty, first writes to a page counted; 0 lifts the limit. The
        /// memory world keeps it as QEMU does ([`WriterQuota`]). A world that cannot answers with an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dirty_rate: Option<f64>,
        /// Seconds that a writer is held at each first write to a page; 0 lifts the limit. A world that
        /// cannot do that answers with an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        write_delay: Option<f64>,
    },
    /// Stop the guest, send the rest, run on the destination.
    SwitchOver,
    /// Run on the destination now, send the rest afterwards.
    PostCopy,
    /// Give up; the guest runs on at the source.
    Abort,
}

impl Act {
    /// Allows a blackout of `seconds`.
    pub fn blackout(seconds: f64) -> Self {
        Self::Limit { blackout: Some(seconds), bandwidth: None, dirty_rate: None, write_delay: None }
    }

    /// Allows `rate` bytes per second on the link.
    pub fn bandwidth(rate: f64) -> Self {
        Self::Limit { blackout: None, bandwidth: Some(rate), dirty_rate: None, write_delay: None }
    }

    /// Lets each writer dirty `rate` bytes per second.
    pub fn dirty_rate(rate: f64) -> Self {
        Self::Limit { blackout: None, bandwidth: None, dirty_rate: Some(rate), write_delay: None }
    }

    /// Holds writers for `seconds` at each first write to a page.
    pub fn write_delay(seconds: f64) -> Self {
        Self::Limit { blackout: None, bandwidth: None, dirty_rate: None, write_delay: Some(seconds) }
    }

    /// Whether it ends the live copy.
    pub fn ends(&self) -> bool {
        matches!(self, Self::SwitchOver | Self::PostCopy | Self::Abort)
    }
}

/// What to do next, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    #[serde(flatten)]
    pub act: Act,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Another round, for no particular reason.
    pub fn proceed() -> Self {
        Self { act: Act::Proceed, reason: Reason::default() }
    }

    /// `act` because of `reason`.
    pub fn new(act: Act, reason: Reason) -> Self {
        Self { act, reason }
    }

    /// Switch over because of `reason`.
    pub fn switch_over(reason: Reason) -> Self {
        Self::new(Act::SwitchOver, reason)
    }

    /// Whether it is more than another round.
    pub fn fires(&self) -> bool {
        self.act != Act::Proceed
    }
}

/// Decides at each round's end, and between if it likes.
pub trait Policy: Send {
    /// What to do after `round`; `history` holds the rounds before it, the oldest first. An error (a
    /// foreign policy raised) ends the migration as failed, with the guest on the source.
    fn decide(&mut self, round: &Round, history: &[Round]) -> Result<Decision>;

    /// What to do in the middle of a round, if anything. A policy works when this is never called: what it
    /// would have done between rounds it does at their ends. The last sample of a round comes before the
    /// round. Errors are as in [`Policy::decide`].
    fn sample(&mut self, _sample: &Sample) -> Result<Option<Decision>> {
        Ok(None)
    }
}

/// The knobs of a policy, able to make it.
pub trait Rule: Knobs {
    /// Makes it, with nothing seen yet.
    fn build(self) -> Result<Box<dyn Policy>>;
}

/// Builds a policy out of knobs.
pub type Make = fn(&Given) -> Result<Box<dyn Policy>>;

/// The registry's line for a policy.
pub const fn entry<R: Rule>(name: &'static str) -> Entry<Make> {
    Entry::of::<R>(name, build::<R> as Make)
}

fn build<R: Rule>(knobs: &Given) -> Result<Box<dyn Policy>> {
    R::from_knobs(knobs)?.build()
}

/// The policy that `spec` names.
pub fn find(spec: &Spec) -> Result<Box<dyn Policy>> {
    (POLICIES.find(&spec.name)?.make)(&spec.knobs)
}
