//! Nothing stays behind: descriptors and threads, counted in a process of their own.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::{pair, LinkSpec, Shaper, Stream, Transport};
use super::{receive_all, PATIENCE};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Seconds on a processor of each relay.
pub(super) fn relay_times() -> Vec<f64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let relays = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "link-relay")
    });
    let spent = relays.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    spent.map(|text| text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9).collect()
}

fn relays() -> usize {
    relay_times().len()
}

/// A thread takes its name, and leaves the list, a moment after it starts and ends.
fn wait_for(condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !condition() && started.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    condition()
}

fn settle(expected: usize, what: &str) {
    let settled = wait_for(|| (descriptors(), relays()) == (expected, 0));
    assert!(settled, "{what}: {} descriptors for {expected}, {} relays", descriptors(), relays());
}

fn channels(shaper: &Shaper, transport: Transport) -> Vec<(Stream, Stream)> {
    let pairs = (0..3).map(|_| pair(transport).unwrap());
    pairs.map(|(far, peer)| (shaper.insert(far).unwrap(), peer)).collect()
}

fn use_and_close(shaper: &Shaper, transport: Transport) {
    for (mut near, peer) in channels(shaper, transport) {
        near.send(&[1; 10_000], "some bytes").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&peer).len(), 10_000);
    }
}

#[test]
#[ignore = "run in a process of its own by nothing_is_left_behind"]
fn alone() {
    let spec = LinkSpec { bandwidth: Some(1e9), rtt: 1e-3, ..LinkSpec::default() };
    for transport in [Transport::Tcp, Transport::Unix] {
        let before = descriptors();
        let shaper = Shaper::new(&spec).unwrap();
        use_and_close(&shaper, transport);
        settle(before + 1, "all channels closed");

        let open = channels(&shaper, transport);
        drop(open);
        settle(before + 1, "all channels dropped at both ends");

        // A hung-up socket is always "ready": a relay that asked about it would never sleep.
        let (gone, held): (Vec<Stream>, Vec<Stream>) = channels(&shaper, transport).into_iter().unzip();
        drop(gone);
        assert!(wait_for(|| relays() == 1), "one end held");
        std::thread::sleep(Duration::from_millis(200));
        assert!(relay_times()[0] < 0.1, "an idle relay took {} s", relay_times()[0]);
        drop(held);
        settle(before + 1, "held ends dropped");

        let mut open = channels(&shaper, transport);
        assert!(wait_for(|| relays() == 1), "three channels, one thread");
        open[0].0.send(&[1; 100_000], "some bytes").unwrap();
        drop(shaper);
        settle(before + 6, "shaper dropped, ends held");
        assert!(open.iter_mut().all(|(near, _)| near.read(&mut [0]).is_err()));
        drop(open);
        settle(before, "everything dropped");
    }
}

#[test]
fn nothing_is_left_behind() {
    let name = concat!(module_path!(), "::alone");
    let name = name.split_once("::").unwrap().1;
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program).args(["--exact", name, "--ignored"]).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}
