//! What shaped links reach, and what the relay costs. Run by hand:
//! `cargo test --release -p migrate_core link::tests::measure -- --ignored --nocapture --test-threads 1`

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use super::super::{pair, LinkSpec, Shaper, Stream, Transport};
use super::leaks::relay_times;

/// Seconds that the relay has been on a processor.
fn relay_time() -> f64 {
    relay_times().first().copied().unwrap_or(0.0)
}

fn drain(mut peer: &Stream, mut left: usize) {
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        left -= peer.read(&mut buffer).unwrap();
    }
}

/// Seconds from the first byte's writing to the last one's arrival, over all channels.
fn transfer(ends: &[(Stream, Stream)], bytes: usize) -> f64 {
    let started = Instant::now();
    thread::scope(|scope| {
        for (near, peer) in ends {
            let share = bytes / ends.len();
            scope.spawn(move || drain(peer, share));
            scope.spawn(move || {
                let piece = vec![1; 128 << 10];
                (0..share / piece.len()).for_each(|_| (&mut &*near).write_all(&piece).unwrap());
                (&mut &*near).write_all(&piece[..share % piece.len()]).unwrap();
            });
        }
    });
    started.elapsed().as_secs_f64()
}

/// Median and longest seconds of `count` one-byte round trips.
fn round_trips((near, peer): &(Stream, Stream), count: usize) -> (f64, f64) {
    let mut times: Vec<f64> = thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            for _ in 0..count {
                (&mut &*peer).read_exact(&mut byte).unwrap();
                (&mut &*peer).write_all(&byte).unwrap();
            }
        });
        let ping = |_| {
            let started = Instant::now();
            (&mut &*near).write_all(&[1]).unwrap();
            (&mut &*near).read_exact(&mut [0]).unwrap();
            started.elapsed().as_secs_f64()
        };
        (0..count).map(ping).collect()
    });
    times.sort_by(f64::total_cmp);
    (times[count / 2], times[count - 1])
}

fn measure(name: &str, spec: &LinkSpec, bytes: usize) {
    let shaper = Shaper::new(spec).unwrap();
    let pairs = (0..spec.channels).map(|_| pair(spec.transport).unwrap());
    let ends: Vec<(Stream, Stream)> = pairs.map(|(far, peer)| (shaper.insert(far).unwrap(), peer)).collect();
    let (median, longest) = round_trips(&ends[0], 40);
    let before = relay_time();
    let took = transfer(&ends, bytes);
    // The way of the last byte is no part of the rate.
    let rate = bytes as f64 / (took - spec.rtt / 2.0);
    println!(
        "{name:<34} {:>8.2} Mbit/s {:>9.1} us round trip (longest {:>9.1})  relay {:>4.1} % of a CPU",
        rate * 8e-6,
        median * 1e6,
        longest * 1e6,
        100.0 * (relay_time() - before) / took,
    );
}

#[test]
#[ignore = "prints speeds; run by hand in a release build"]
fn speeds() {
    let link = |bits: f64, rtt, channels| LinkSpec {
        bandwidth: Some(bits / 8.0),
        rtt,
        channels,
        ..LinkSpec::default()
    };
    let bare = |transport| LinkSpec { transport, ..LinkSpec::default() };
    measure("bare TCP", &bare(Transport::Tcp), 4 << 30);
    measure("bare UNIX", &bare(Transport::Unix), 4 << 30);
    measure("1 Gbit/s + 0.5 ms", &link(1e9, 0.5e-3, 1), 125_000_000);
    measure("1 Gbit/s + 0.5 ms, 4 channels", &link(1e9, 0.5e-3, 4), 125_000_000);
    measure("100 Mbit/s + 40 ms", &link(1e8, 40e-3, 1), 12_500_000);
    measure("10 Gbit/s", &link(1e10, 0.0, 1), 1_250_000_000);
    measure("10 Gbit/s, 4 channels", &link(1e10, 0.0, 4), 1_250_000_000);
    measure("10 Gbit/s, UNIX", &LinkSpec { transport: Transport::Unix, ..link(1e10, 0.0, 1) }, 1_250_000_000);
    measure("10 Gbit/s + 10 ms", &link(1e10, 10e-3, 1), 1_250_000_000);
    measure("no limit + 1 ms", &LinkSpec { rtt: 1e-3, ..LinkSpec::default() }, 2 << 30);
}
