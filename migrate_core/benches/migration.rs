//! Throughput of pre-copy over loopback TCP, as a share of the raw limit: the same bytes over the same
//! number of sockets by plain writes from touched memory into touched memory.
//!
//! `cargo bench -p migrate_core --bench migration [-- MIB [REPEATS]]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use migrate_core::guest::{restore_known, Guest, GuestSpec, Layout};
use migrate_core::knobs::Spec;
use migrate_core::link::{pair, Transport};
use migrate_core::report::{Outcome, Report};
use migrate_core::world::memory::{receive_in_thread, Reception, Sending, Source};
use migrate_core::world::Migration;
use migrate_core::{policy, strategy, track};
use rand::Rng;
use rand_pcg::rand_core::SeedableRng;

const PIECE: usize = 1 << 20;

fn raw(bytes: usize, channels: usize) -> f64 {
    let from = vec![0x5au8; bytes];
    let mut to = vec![1u8; bytes];
    let share = bytes / channels;
    let pairs: Vec<_> = (0..channels)
        .map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        })
        .collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for ((from, to), (mut near, mut far)) in from.chunks(share).zip(to.chunks_mut(share)).zip(pairs) {
            scope.spawn(move || from.chunks(PIECE).for_each(|piece| near.write_all(piece).unwrap()));
            scope.spawn(move || to.chunks_mut(PIECE).for_each(|piece| far.read_exact(piece).unwrap()));
        }
    });
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// Bytes per second from the first page to the word that the guest runs on the destination.
fn pre_copy(bytes: usize, channels: usize) -> f64 {
    let workload = Spec::new("sweep").with("rate", 4096.0).with("share", 0.001);
    let spec = GuestSpec::new(Layout::single(bytes as u64), vec![workload], 1);
    let guest = Guest::new(&spec).unwrap();
    let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let mut piece = vec![0; PIECE];
    for offset in (0..bytes).step_by(PIECE) {
        random.fill_bytes(&mut piece);
        guest.memory().write(offset as u64, &piece);
    }
    let (near, far) = (0..channels).map(|_| pair(Transport::Tcp).unwrap()).unzip();
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let sending = Sending { warm_up: Duration::from_millis(10), ..Sending::default() };
    let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
    let mut migration = Migration::new(source, strategy::find(&Spec::new("pre-copy")).unwrap());
    migration.run(policy::find(&Spec::new("downtime-limit")).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, _) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
    drop(destination.join().unwrap().unwrap());
    bytes as f64 / (report.total_time - report.setup_time)
}

fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn main() {
    let arguments: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let (mib, repeats) = (arguments.first().copied().unwrap_or(1024), arguments.get(1).copied().unwrap_or(7));
    println!("pre-copy of {mib} MiB incompressible memory over loopback TCP, against plain writes; {repeats} pairs");
    for channels in [1, 2] {
        let mut ratios = Vec::new();
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for pair in 0..=repeats {
            let (a, b) = (pre_copy(mib << 20, channels), raw(mib << 20, channels));
            // The first pair warms up.
            if pair > 0 {
                ratios.push(a / b);
                ours.push(a / 1e9);
                limits.push(b / 1e9);
            }
        }
        let ((least, median, most), (_, ours, _), (_, limit, _)) =
            (spread(ratios), spread(ours), spread(limits));
        println!(
            "channels {channels}: ratio {median:.2} ({least:.2} to {most:.2}); median {ours:.2} GB/s of {limit:.2} GB/s"
        );
    }
}
