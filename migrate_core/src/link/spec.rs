//! What a link is like: how many channels, how fast, how far, how steady.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most channels that a link may have.
pub const MOST_CHANNELS: u32 = 16;

/// Most bytes that may be under way in one direction, since the relay holds them in memory.
const MOST_IN_FLIGHT: f64 = (1u64 << 30) as f64;
/// Longest delay and outage, in seconds, and latest start of an outage.
const LONGEST: f64 = 86_400.0;

/// The kind of sockets of links that both ends of which are made here.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP over loopback.
    #[default]
    Tcp,
    /// UNIX stream sockets.
    Unix,
}

/// A time in which nothing moves and nothing is lost.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// Start, in seconds since the link's start.
    pub at: f64,
    /// Length, in seconds.
    pub duration: f64,
}

/// A link: its channels and how it is shaped. The default is one bare TCP channel.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    /// Kind of sockets of a link that is made here; an [`Endpoint`](super::Endpoint) brings its own.
    pub transport: Transport,
    /// Connections that share the link, from 1 to [`MOST_CHANNELS`].
    pub channels: u32,
    /// Payload bytes per second in each direction, all channels together; `None` leaves it unshaped.
    pub bandwidth: Option<f64>,
    /// Round-trip time that is added, in seconds; half of it in each direction.
    pub rtt: f64,
    /// Most jitter, in seconds: a uniform draw from 0 to this is added to each burst. Order is kept.
    pub jitter: f64,
    /// When nothing moves; they may overlap.
    pub outages: Vec<Outage>,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            transport: Transport::Tcp,
            channels: 1,
            bandwidth: None,
            rtt: 0.0,
            jitter: 0.0,
            outages: Vec::new(),
            seed: 0,
        }
    }
}

impl LinkSpec {
    /// Refuses what no link can be, naming the field, the value and the range.
    pub fn validate(&self) -> Result<()> {
        within("channels", self.channels.into(), 1.0, MOST_CHANNELS.into(), "")?;
        if let Some(bandwidth) = self.bandwidth {
            within("bandwidth", bandwidth, 1.0, 1e12, " bytes per second")?;
        }
        within("rtt", self.rtt, 0.0, LONGEST, " seconds")?;
        within("jitter", self.jitter, 0.0, LONGEST, " seconds")?;
        for outage in &self.outages {
            within("an outage's `at`", outage.at, 0.0, LONGEST, " seconds")?;
            within("an outage's `duration`", outage.duration, 0.0, LONGEST, " seconds")?;
        }
        self.validate_in_flight()
    }

    fn validate_in_flight(&self) -> Result<()> {
        let bytes = self.bandwidth.unwrap_or(0.0) * self.longest_delay();
        if bytes <= MOST_IN_FLIGHT {
            return Ok(());
        }
        Err(Error::usage(format!(
            "link: {:.1} GiB would be under way at this bandwidth and rtt; at most 1 GiB can be, \
             so lower the bandwidth, the rtt or the jitter",
            bytes / MOST_IN_FLIGHT
        )))
    }

    /// Whether bytes need a relay at all.
    pub fn is_shaped(&self) -> bool {
        let outage = self.outages.iter().any(|outage| outage.duration > 0.0);
        self.bandwidth.is_some() || self.longest_delay() > 0.0 || outage
    }

    /// Most seconds added to a byte's way in one direction, outages aside.
    pub(super) fn longest_delay(&self) -> f64 {
        self.rtt / 2.0 + self.jitter
    }
}

fn within(name: &str, value: f64, least: f64, most: f64, unit: &str) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::usage(format!("link: {name} must be from {least} to {most}{unit}, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(spec: LinkSpec) -> String {
        spec.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_one_bare_tcp_channel() {
        let spec: LinkSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, LinkSpec::default());
        assert_eq!((spec.channels, spec.transport, spec.is_shaped()), (1, Transport::Tcp, false));
        spec.validate().unwrap();
    }

    #[test]
    fn json_round_trip_and_unknown_fields() {
        let text = r#"{"transport":"unix","channels":4,"bandwidth":1.25e8,"rtt":0.0005,
                       "outages":[{"at":1.0,"duration":0.5}]}"#;
        let spec: LinkSpec = serde_json::from_str(text).unwrap();
        assert_eq!((spec.transport, spec.outages[0].duration), (Transport::Unix, 0.5));
        let again = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(spec, again);
        assert!(serde_json::from_str::<LinkSpec>(r#"{"bandwith":1}"#).is_err());
    }

    #[test]
    fn absurd_values_are_refused_by_name() {
        let base = LinkSpec::default;
        assert_eq!(refusal(LinkSpec { channels: 0, ..base() }), "link: channels must be from 1 to 16, not 0");
        assert!(refusal(LinkSpec { channels: 17, ..base() }).contains("17"));
        assert!(refusal(LinkSpec { bandwidth: Some(0.0), ..base() }).contains("bytes per second"));
        assert!(refusal(LinkSpec { bandwidth: Some(f64::NAN), ..base() }).contains("NaN"));
        assert!(refusal(LinkSpec { rtt: -1.0, ..base() }).contains("rtt"));
        assert!(refusal(LinkSpec { jitter: f64::INFINITY, ..base() }).contains("jitter"));
        let outages = vec![Outage { at: 1.0, duration: -2.0 }];
        assert!(refusal(LinkSpec { outages, ..base() }).contains("duration"));
        let far = LinkSpec { bandwidth: Some(1e11), rtt: 1.0, ..base() };
        assert!(refusal(far).contains("46.6 GiB"));
    }

    #[test]
    fn each_kind_of_shaping_counts() {
        let base = LinkSpec::default;
        assert!(LinkSpec { bandwidth: Some(1e9), ..base() }.is_shaped());
        assert!(LinkSpec { rtt: 0.1, ..base() }.is_shaped());
        assert!(LinkSpec { jitter: 0.1, ..base() }.is_shaped());
        assert!(LinkSpec { outages: vec![Outage { at: 0.0, duration: 1.0 }], ..base() }.is_shaped());
        assert!(!LinkSpec { outages: vec![Outage { at: 0.0, duration: 0.0 }], ..base() }.is_shaped());
    }
}
