//! End-to-end tests: real sockets, real relays. The pure parts are tested beside their code.

mod leaks;
mod measure;
mod plain;
mod shaped;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::Stream;

/// A bound on hanging, not a measure of speed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `count` bytes in which any loss, repetition or exchange shows.
fn pattern(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Writes `bytes` in pieces of `piece` on a thread of its own, then ends that direction.
fn send_in_background(stream: &Stream, bytes: Vec<u8>, piece: usize) -> thread::JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || {
        for part in bytes.chunks(piece) {
            stream.write_all(part).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn receive_all(mut stream: &Stream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}
